"""Operations on what this server has none of: groups, MFA devices, passwords, certificates, instance profiles.

Tools that clean up list all that may belong to a user or a role before they delete it (Terraform's `force_destroy`,
aws-nuke, scripts after IAM's "Deleting an IAM user"), so each list is here, and empty. What would have to be there
first is a NoSuchEntity.
"""

from collections.abc import Mapping
from functools import partial

from moorage.auth.identities import Role, User
from moorage.controller.iam.base import Call, Members, Output
from moorage.controller.iam.users_and_roles import with_user_name
from moorage.controller.query import Handler
from moorage.errors import NoSuchEntity

_OF_A_USER = {
    "ListGroupsForUser": "Groups",
    "ListMFADevices": "MFADevices",
    "ListServiceSpecificCredentials": "ServiceSpecificCredentials",
    "ListSigningCertificates": "Certificates",
    "ListSSHPublicKeys": "SSHPublicKeys",
}
_OF_THE_ACCOUNT = {
    "ListAccountAliases": "AccountAliases",
    "ListGroups": "Groups",
    "ListInstanceProfiles": "InstanceProfiles",
    "ListOpenIDConnectProviders": "OpenIDConnectProviderList",
    "ListSAMLProviders": "SAMLProviderList",
    "ListServerCertificates": "ServerCertificateMetadataList",
    "ListVirtualMFADevices": "VirtualMFADevices",
}
"""Each with the member of its reply."""


async def none_of_a_user(member: str, call: Call, members: Members) -> Output:
    """Of the requester itself, where the request names no user. A root has none of these either."""
    if "UserName" in members or not call.requester.is_root:
        await call.identity(User, with_user_name(call, members))
    else:
        await call.check("*")
    return {member: [], "IsTruncated": False}


async def no_instance_profiles_of_a_role(call: Call, members: Members) -> Output:
    await call.identity(Role, members)
    return {"InstanceProfiles": [], "IsTruncated": False}


async def none_of_the_account(member: str, call: Call, members: Members) -> Output:
    await call.check("*")
    return {member: [], "IsTruncated": False}


async def no_password(call: Call, members: Members) -> Output:
    user = await call.identity(User, with_user_name(call, members))
    raise NoSuchEntity(f"Login Profile for User {user.name} cannot be found.")


async def no_password_policy(call: Call, members: Members) -> Output:
    await call.check("*")
    raise NoSuchEntity(f"The Password Policy with domain name {call.account_id} cannot be found.")


async def no_group(call: Call, members: Members) -> Output:
    name = members["GroupName"]
    await call.check(call.arn("group", name))
    raise NoSuchEntity(f"The group with name {name} cannot be found.")


async def no_instance_profile(call: Call, members: Members) -> Output:
    name = members["InstanceProfileName"]
    await call.check(call.arn("instance-profile", name))
    raise NoSuchEntity(f"Instance Profile {name} cannot be found.")


async def no_mfa_device(call: Call, members: Members) -> Output:
    user = await call.identity(User, with_user_name(call, members))
    raise NoSuchEntity(f"MFA Device {members['SerialNumber']} of user {user.name} cannot be found.")


async def no_virtual_mfa_device(call: Call, members: Members) -> Output:
    number = members["SerialNumber"]
    await call.check(number)
    raise NoSuchEntity(f"VirtualMFADevice with serial number {number} does not exist.")


OPERATIONS: Mapping[str, Handler[Call]] = {
    **{name: partial(none_of_a_user, member) for name, member in _OF_A_USER.items()},
    **{name: partial(none_of_the_account, member) for name, member in _OF_THE_ACCOUNT.items()},
    "ListInstanceProfilesForRole": no_instance_profiles_of_a_role,
    "GetLoginProfile": no_password,
    "DeleteLoginProfile": no_password,
    "GetAccountPasswordPolicy": no_password_policy,
    "GetGroup": no_group,
    "ListGroupPolicies": no_group,
    "ListAttachedGroupPolicies": no_group,
    "RemoveUserFromGroup": no_group,
    "GetInstanceProfile": no_instance_profile,
    "RemoveRoleFromInstanceProfile": no_instance_profile,
    "DeactivateMFADevice": no_mfa_device,
    "DeleteVirtualMFADevice": no_virtual_mfa_device,
}
