"""The condition keys that policies may name: those that this server fills, and those that no request to it can have.

A policy that names any other key would not do what it says: a Deny that depends on the key never denies. So what
stores a policy refuses it if the statement can matter here (`check_condition_keys` in
`moorage.auth.policy_documents`), and in a policy that an earlier version stored, a statement that depends on such a
key denies if it is a Deny, and allows nothing if it is an Allow.

A key that is filled is so wherever AWS fills it and the request has it; elsewhere it is absent, as on AWS.

Sources: "AWS global condition context keys" in the IAM User Guide, and the service authorization reference.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from moorage.auth.actions import ACTIONS

EVERY_REQUEST: Final = "every request"

FILLED: Final[Mapping[str, Iterable[str]]] = {
    EVERY_REQUEST: (
        "aws:CurrentTime",
        "aws:EpochTime",
        "aws:MultiFactorAuthPresent",
        "aws:PrincipalAccount",
        "aws:PrincipalArn",
        "aws:PrincipalIsAWSService",
        "aws:PrincipalServiceName",
        "aws:PrincipalServiceNamesList",
        "aws:PrincipalTag/*",
        "aws:PrincipalType",
        "aws:Referer",
        "aws:RequestedRegion",
        "aws:ResourceAccount",
        "aws:SecureTransport",
        "aws:SourceAccount",
        "aws:SourceArn",
        "aws:SourceIp",
        "aws:TokenIssueTime",
        "aws:UserAgent",
        "aws:ViaAWSService",
        "aws:userid",
        "aws:username",
    ),
    "sagemaker": (
        "aws:RequestTag/*",
        "aws:ResourceTag/*",
        "aws:TagKeys",
        "sagemaker:AcceleratorTypes",
        "sagemaker:InstanceTypes",
        "sagemaker:NetworkIsolation",
        "sagemaker:ResourceTag/*",
        "sagemaker:ServerlessMaxConcurrency",
        "sagemaker:ServerlessMemorySize",
        "sagemaker:TargetModel",
        "sagemaker:VolumeKmsKey",
        "sagemaker:VpcSecurityGroupIds",
        "sagemaker:VpcSubnets",
    ),
    "iam": (
        "aws:RequestTag/*",
        "aws:ResourceTag/*",
        "aws:TagKeys",
        "iam:PassedToService",
        "iam:PolicyARN",
        "iam:ResourceTag/*",
    ),
    "sts": (
        "aws:RequestTag/*",
        "aws:ResourceTag/*",
        "aws:TagKeys",
        "sts:ExternalId",
        "sts:RoleSessionName",
    ),
    "s3": (
        "s3:ExistingObjectTag/*",
        "s3:LocationConstraint",
        "s3:RequestObjectTag/*",
        "s3:RequestObjectTagKeys",
        "s3:ResourceAccount",
        "s3:VersionId",
        "s3:authType",
        "s3:delimiter",
        "s3:if-match",
        "s3:if-none-match",
        "s3:max-keys",
        "s3:prefix",
        "s3:signatureAge",
        "s3:signatureversion",
        "s3:x-amz-acl",
        "s3:x-amz-content-sha256",
        "s3:x-amz-copy-source",
        "s3:x-amz-metadata-directive",
        "s3:x-amz-object-ownership",
        "s3:x-amz-server-side-encryption",
        "s3:x-amz-storage-class",
        "s3:x-amz-website-redirect-location",
    ),
}
"""By the service whose requests have them. `/*` stands for the key of a tag."""

ABSENT: Final[Mapping[str, Iterable[str]]] = {
    "accounts of this server belong to no organization": (
        "aws:PrincipalOrgID",
        "aws:PrincipalOrgPaths",
        "aws:ResourceOrgID",
        "aws:ResourceOrgPaths",
        "aws:SourceOrgID",
        "aws:SourceOrgPaths",
        "aws:VpceOrgID",
        "aws:VpceOrgPaths",
    ),
    "no request comes through an endpoint of a VPC": (
        "aws:SourceVpc",
        "aws:SourceVpcArn",
        "aws:SourceVpce",
        "aws:VpceAccount",
        "aws:VpcSourceIp",
    ),
    "credentials are none of EC2 instances, of chat applications, of federation, or of AssumeRoot": (
        "aws:AssumedRoot",
        "aws:ChatbotSourceArn",
        "aws:Ec2InstanceSourcePrivateIPv4",
        "aws:Ec2InstanceSourceVpc",
        "aws:FederatedProvider",
    ),
    "there are no MFA devices": ("aws:MultiFactorAuthAge",),
    "no service calls with the credentials of its caller": (
        "aws:CalledVia",
        "aws:CalledViaFirst",
        "aws:CalledViaLast",
    ),
    "AssumeRole refuses what would set it": (
        "aws:SourceIdentity",
        "sts:SourceIdentity",
        "sts:TransitiveTagKeys",
    ),
    "requests with a permissions boundary are refused": ("iam:PermissionsBoundary",),
    "there are no inference routers": ("sagemaker:SourceInferenceRouterArn",),
    "S3 has no access points and no access grants here": (
        "s3:AccessGrantsInstanceArn",
        "s3:AccessPointNetworkOrigin",
        "s3:AccessPointTag/*",
        "s3:DataAccessPointAccount",
        "s3:DataAccessPointArn",
        "s3:DataAccessPointTag/*",
    ),
    "buckets are not enabled for access by tags": ("s3:BucketTag/*",),
    "requests with the header are refused": (
        "s3:object-lock-legal-hold",
        "s3:object-lock-mode",
        "s3:object-lock-remaining-retention-days",
        "s3:object-lock-retain-until-date",
        "s3:x-amz-grant-full-control",
        "s3:x-amz-grant-read",
        "s3:x-amz-grant-read-acp",
        "s3:x-amz-grant-write",
        "s3:x-amz-grant-write-acp",
        "s3:x-amz-server-side-encryption-aws-kms-key-id",
        "s3:x-amz-server-side-encryption-customer-algorithm",
    ),
    "only operations that this server does not have fill it": (
        "iam:AWSServiceName",
        "iam:FIDO-FIPS-140-2-certification",
        "iam:FIDO-FIPS-140-3-certification",
        "iam:FIDO-certification",
        "iam:OrganizationsPolicyId",
        "iam:RegisterSecurityKey",
        "iam:ServiceSpecificCredentialAgeDays",
        "iam:ServiceSpecificCredentialServiceName",
        "logs:DeliveryDestinationResourceArn",
        "logs:DestinationArn",
        "logs:LogGeneratingResourceArns",
        "s3:ExistingJobOperation",
        "s3:ExistingJobPriority",
        "s3:InventoryAccessibleOptionalFields",
        "s3:JobSuspendedCause",
        "s3:RequestJobOperation",
        "s3:RequestJobPriority",
        "sagemaker:AppNetworkAccessType",
        "sagemaker:CustomerMetadataProperties/*",
        "sagemaker:CustomerMetadataPropertiesToRemove",
        "sagemaker:DirectInternetAccess",
        "sagemaker:DomainId",
        "sagemaker:DomainSharingOutputKmsKey",
        "sagemaker:EnableRemoteDebug",
        "sagemaker:FeatureGroupDisableGlueTableCreation",
        "sagemaker:FeatureGroupEnableOnlineStore",
        "sagemaker:FeatureGroupOfflineStoreConfig",
        "sagemaker:FeatureGroupOfflineStoreKmsKey",
        "sagemaker:FeatureGroupOfflineStoreS3Uri",
        "sagemaker:FeatureGroupOnlineStoreKmsKey",
        "sagemaker:FileSystemAccessMode",
        "sagemaker:FileSystemDirectoryPath",
        "sagemaker:FileSystemId",
        "sagemaker:FileSystemType",
        "sagemaker:HomeEfsFileSystemKmsKey",
        "sagemaker:ImageArns",
        "sagemaker:ImageVersionArns",
        "sagemaker:InterContainerTrafficEncryption",
        "sagemaker:KeepAlivePeriod",
        "sagemaker:MaxRuntimeInSeconds",
        "sagemaker:MinimumInstanceMetadataServiceVersion",
        "sagemaker:ModelApprovalStatus",
        "sagemaker:OutputKmsKey",
        "sagemaker:OwnerUserProfileArn",
        "sagemaker:RemoteAccess",
        "sagemaker:RootAccess",
        "sagemaker:SearchVisibilityCondition/*",
        "sagemaker:TaggingAction",
        "sagemaker:UserProfileName",
        "sagemaker:WorkteamArn",
        "sagemaker:WorkteamType",
        "sts:AWSServiceName",
        "sts:DurationSeconds",
        "sts:IdentityTokenAudience",
        "sts:RequestContext/*",
        "sts:RequestContextProviders",
        "sts:SigningAlgorithm",
        "sts:TaskPolicyArn",
    ),
}
"""Keys that are absent here as they would be on AWS for such requests, by the reason."""

_KNOWN: Final = frozenset(
    key.lower() for group in (*FILLED.values(), *ABSENT.values()) for key in group if not key.endswith("/*")
)
_FAMILIES: Final = frozenset(
    key.lower().removesuffix("*")
    for group in (*FILLED.values(), *ABSENT.values())
    for key in group
    if key.endswith("/*")
)


def is_known(key: str) -> bool:
    """Whether a statement that names the key, in lower case, does what it says."""
    if key in _KNOWN:
        return True
    family, slash, tag = key.partition("/")
    return bool(tag) and family + slash in _FAMILIES


def unknown_of(keys: Iterable[str]) -> frozenset[str]:
    """Those that this server never fills, though it could matter."""
    return frozenset(key for key in keys if not is_known(key))


def can_matter(covers: Callable[[str], bool]) -> bool:
    """Whether a statement is about an action that this server asks for; `covers` takes one in lower case."""
    return any(map(covers, ACTIONS))


def filled_for(covers: Callable[[str], bool]) -> list[str]:
    """The keys that may be named in a statement, by the services that it is about."""
    services = {action.partition(":")[0] for action in ACTIONS if covers(action)}
    return sorted(
        {key for service, keys in FILLED.items() for key in keys if service in services | {EVERY_REQUEST}},
        key=str.lower,
    )
