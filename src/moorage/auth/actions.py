"""The IAM actions that this server asks for permission for, and those of S3 that a bucket's policy may name."""

from typing import Final


def _of(service: str, names: str) -> frozenset[str]:
    return frozenset(f"{service}:{name}".lower() for name in names.split())


_SAGEMAKER: Final = _of(
    "sagemaker",
    """
    AddTags CreateEndpoint CreateEndpointConfig CreateModel DeleteEndpoint DeleteEndpointConfig DeleteEndpointPolicy
    DeleteModel DeleteTags DescribeEndpoint DescribeEndpointConfig DescribeModel GetEndpointPolicy InvokeEndpoint
    InvokeEndpointAsync ListEndpointConfigs ListEndpoints ListModels ListTags PutEndpointPolicy UpdateEndpoint
    """,
)
_IAM: Final = _of(
    "iam",
    """
    AttachRolePolicy AttachUserPolicy CreateAccessKey CreatePolicy CreateRole CreateUser DeactivateMFADevice
    DeleteAccessKey DeleteLoginProfile DeletePolicy DeletePolicyVersion DeleteRole DeleteRolePolicy DeleteUser
    DeleteUserPolicy DeleteVirtualMFADevice DetachRolePolicy DetachUserPolicy GetAccessKeyLastUsed
    GetAccountPasswordPolicy GetContextKeysForCustomPolicy GetContextKeysForPrincipalPolicy GetGroup
    GetInstanceProfile GetLoginProfile GetPolicy GetPolicyVersion GetRole GetRolePolicy GetUser GetUserPolicy
    ListAccessKeys ListAccountAliases ListAttachedGroupPolicies ListAttachedRolePolicies ListAttachedUserPolicies
    ListEntitiesForPolicy ListGroupPolicies ListGroups ListGroupsForUser ListInstanceProfiles
    ListInstanceProfilesForRole ListMFADevices ListOpenIDConnectProviders ListPolicies ListPolicyTags
    ListPolicyVersions ListRolePolicies ListRoleTags ListRoles ListSAMLProviders ListSSHPublicKeys
    ListServerCertificates ListServiceSpecificCredentials ListSigningCertificates ListUserPolicies ListUserTags
    ListUsers ListVirtualMFADevices PassRole PutRolePolicy PutUserPolicy RemoveRoleFromInstanceProfile
    RemoveUserFromGroup SimulateCustomPolicy SimulatePrincipalPolicy TagRole TagUser UntagRole UntagUser
    UpdateAccessKey UpdateAssumeRolePolicy UpdateRole UpdateUser
    """,
)
_STS: Final = _of("sts", "AssumeRole GetAccessKeyInfo TagSession")
_LOGS: Final = _of("logs", "FilterLogEvents GetLogEvents")
_MOORAGE: Final = _of("moorage", "CreateAccount Read Write")
_S3: Final = _of(
    "s3",
    """
    AbortMultipartUpload CreateBucket DeleteBucket DeleteBucketPolicy DeleteObject DeleteObjectTagging
    DeleteObjectVersion DeleteObjectVersionTagging GetBucketAcl GetBucketLocation GetBucketPolicy
    GetBucketPolicyStatus GetBucketTagging GetBucketVersioning GetObject GetObjectAttributes GetObjectTagging
    GetObjectVersion GetObjectVersionAttributes GetObjectVersionTagging ListAllMyBuckets ListBucket
    ListBucketMultipartUploads ListBucketVersions ListMultipartUploadParts PutBucketPolicy PutBucketTagging
    PutBucketVersioning PutObject PutObjectTagging PutObjectVersionTagging
    """,
)
ACTIONS: Final = _SAGEMAKER | _IAM | _STS | _LOGS | _MOORAGE | _S3
"""In lower case. What a statement says of others never matters here. A test compares with the operations."""

# --- What a bucket's policy may name -------------------------------------------------------------------
# After "Actions, resources, and condition keys for Amazon S3" in the service authorization reference.

S3_OBJECT_ACTIONS: Final = _of(
    "s3",
    """
    AbortMultipartUpload BypassGovernanceRetention DeleteObject DeleteObjectTagging DeleteObjectVersion
    DeleteObjectVersionTagging GetObject GetObjectAcl GetObjectAttributes GetObjectLegalHold GetObjectRetention
    GetObjectTagging GetObjectTorrent GetObjectVersion GetObjectVersionAcl GetObjectVersionAttributes
    GetObjectVersionForReplication GetObjectVersionTagging GetObjectVersionTorrent InitiateReplication
    ListMultipartUploadParts ObjectOwnerOverrideToBucketOwner PutObject PutObjectAcl PutObjectLegalHold
    PutObjectRetention PutObjectTagging PutObjectVersionAcl PutObjectVersionTagging ReplicateDelete ReplicateObject
    ReplicateTags RestoreObject UpdateObjectEncryption
    """,
)
"""On objects, in lower case."""

S3_BUCKET_ACTIONS: Final = _of(
    "s3",
    """
    CreateBucketMetadataTableConfiguration DeleteBucket DeleteBucketMetadataTableConfiguration DeleteBucketPolicy
    DeleteBucketWebsite GetAccelerateConfiguration GetAnalyticsConfiguration GetBucketAbac GetBucketAcl GetBucketCORS
    GetBucketLocation GetBucketLogging GetBucketMetadataTableConfiguration GetBucketNotification
    GetBucketObjectLockConfiguration GetBucketOwnershipControls GetBucketPolicy GetBucketPolicyStatus
    GetBucketPublicAccessBlock GetBucketRequestPayment GetBucketTagging GetBucketVersioning GetBucketWebsite
    GetEncryptionConfiguration GetIntelligentTieringConfiguration GetInventoryConfiguration GetLifecycleConfiguration
    GetMetricsConfiguration GetReplicationConfiguration ListBucket ListBucketMultipartUploads ListBucketVersions
    ListTagsForResource PutAccelerateConfiguration PutAnalyticsConfiguration PutBucketAbac PutBucketAcl PutBucketCORS
    PutBucketLogging PutBucketNotification PutBucketObjectLockConfiguration PutBucketOwnershipControls PutBucketPolicy
    PutBucketPublicAccessBlock PutBucketRequestPayment PutBucketTagging PutBucketVersioning PutBucketWebsite
    PutEncryptionConfiguration PutIntelligentTieringConfiguration PutInventoryConfiguration PutLifecycleConfiguration
    PutMetricsConfiguration PutReplicationConfiguration TagResource UntagResource
    UpdateBucketMetadataInventoryTableConfiguration UpdateBucketMetadataJournalTableConfiguration
    """,
)
"""On the bucket itself. CreateBucket is none: there is no policy yet then."""
