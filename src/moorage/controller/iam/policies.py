"""Policies: inline ones, managed ones, and who has which. A managed policy has one version, `v1`."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from moorage.auth.aws_managed import AWS_MANAGED
from moorage.auth.identities import ManagedPolicy, Role, User, new_policy_id
from moorage.controller.iam.base import (
    NAME,
    Call,
    Members,
    Output,
    check_policy,
    check_size,
    encoded,
    page,
    request_context,
    resource_context,
    tag_list,
    tags_of,
)
from moorage.controller.query import Handler
from moorage.errors import (
    AccessDeniedException,
    DeleteConflict,
    MalformedPolicyDocument,
    NoSuchEntity,
)
from moorage.storage.identities import I, no_such_inline_policy

MOST_INLINE = {User.kind: 2048, Role.kind: 10240}
MOST_MANAGED = 6144
_VERSION = "v1"
_NEWEST_LANGUAGE = "2012-10-17"

# --- Inline --------------------------------------------------------------------------------------------


async def put_inline(kind: type[I], call: Call, members: Members) -> Output:
    identity = await call.identity(kind, members)
    name, document = members["PolicyName"], members["PolicyDocument"]
    check_policy(document)
    others = await call.store.inline_policies(kind, call.account_id, identity.name)
    others.pop(name, None)
    check_size(f"{kind.kind.capitalize()}PolicySize", MOST_INLINE[kind.kind], document, *others.values())
    await call.store.put_inline_policy(kind, call.account_id, identity.name, name, document)
    return {}


async def get_inline(kind: type[I], call: Call, members: Members) -> Output:
    identity = await call.identity(kind, members)
    name = members["PolicyName"]
    found = await call.store.inline_policies(kind, call.account_id, identity.name)
    if name not in found:
        raise no_such_inline_policy(kind.kind, name)
    return {NAME[kind.kind]: identity.name, "PolicyName": name, "PolicyDocument": encoded(found[name])}


async def list_inline(kind: type[I], call: Call, members: Members) -> Output:
    identity = await call.identity(kind, members)
    found = await call.store.inline_policies(kind, call.account_id, identity.name)
    shown, more = page(list(found), members, str)
    return {"PolicyNames": shown, **more}


async def delete_inline(kind: type[I], call: Call, members: Members) -> Output:
    identity = await call.identity(kind, members)
    await call.store.delete_inline_policy(kind, call.account_id, identity.name, members["PolicyName"])
    return {}


# --- Managed -------------------------------------------------------------------------------------------


async def create_policy(call: Call, members: Members) -> Output:
    policy = ManagedPolicy(
        account_id=call.account_id,
        policy_id=new_policy_id(),
        name=members["PolicyName"],
        path=members.get("Path", "/"),
        description=members.get("Description"),
        document=members["PolicyDocument"],
        created=call.time,
        tags=tags_of(members),
    )
    await call.check(policy.arn, request_context(members))
    if check_policy(policy.document).version != _NEWEST_LANGUAGE:
        # Of managed policies only: inline ones, trust policies and session policies may be older.
        raise MalformedPolicyDocument(f"Policy document must be version {_NEWEST_LANGUAGE} or greater.")
    check_size("PolicySize", MOST_MANAGED, policy.document)
    await call.store.create_policy(policy)
    return {"Policy": _described(policy)}


async def get_policy(call: Call, members: Members) -> Output:
    return {"Policy": _described(await _policy(call, members))}


async def get_policy_version(call: Call, members: Members) -> Output:
    policy = await _policy(call, members)
    if members["VersionId"] != _VERSION:
        raise NoSuchEntity(f"Policy {policy.arn} version {members['VersionId']} does not exist.")
    return {"PolicyVersion": {**_version(policy), "Document": encoded(policy.document)}}


async def list_policy_versions(call: Call, members: Members) -> Output:
    return {"Versions": [_version(await _policy(call, members))], "IsTruncated": False}


async def delete_policy_version(call: Call, members: Members) -> Output:
    policy = await _policy(call, members)
    if members["VersionId"] == _VERSION:
        raise DeleteConflict("Cannot delete the default version of a policy.")
    raise NoSuchEntity(f"Policy {policy.arn} version {members['VersionId']} does not exist.")


async def list_policy_tags(call: Call, members: Members) -> Output:
    policy = await _policy(call, members)
    shown, more = page(tag_list(policy.tags), members, lambda each: str(each["Key"]))
    return {"Tags": shown, **more}


async def list_policies(call: Call, members: Members) -> Output:
    prefix = members.get("PathPrefix", "/")
    await call.check(call.arn("policy", "", path=prefix))
    scope = members.get("Scope", "All")
    found = [
        policy
        for policy in await call.store.policies(call.account_id)
        if policy.path.startswith(prefix)
        and scope in ("All", "AWS" if policy.arn in AWS_MANAGED else "Local")
        and (policy.attachments or not members.get("OnlyAttached", False))
        and members.get("PolicyUsageFilter") != "PermissionsBoundary"
    ]
    shown, more = page(found, members, lambda policy: policy.arn)
    return {"Policies": [{**_described(policy), "Tags": None} for policy in shown], **more}


async def delete_policy(call: Call, members: Members) -> Output:
    arn = members["PolicyArn"]
    if arn in AWS_MANAGED:
        raise AccessDeniedException(f"Policy {arn} belongs to AWS.")
    await _policy(call, members)
    await call.store.delete_policy(call.account_id, arn)
    return {}


# --- Who has which -------------------------------------------------------------------------------------


async def attach(kind: type[I], call: Call, members: Members) -> Output:
    arn = members["PolicyArn"]
    identity = await call.identity(kind, members)
    await call.store.attach(kind, call.account_id, identity.name, arn)
    return {}


async def detach(kind: type[I], call: Call, members: Members) -> Output:
    arn = members["PolicyArn"]
    identity = await call.identity(kind, members)
    await call.store.detach(kind, call.account_id, identity.name, arn)
    return {}


async def list_attached(kind: type[I], call: Call, members: Members) -> Output:
    identity = await call.identity(kind, members)
    prefix = members.get("PathPrefix", "/")
    arns = await call.store.attached(kind, call.account_id, identity.name)
    shown, more = page([arn for arn in arns if _path(arn).startswith(prefix)], members, str)
    attached = [{"PolicyName": arn.rpartition("/")[2], "PolicyArn": arn} for arn in shown]
    return {"AttachedPolicies": attached, **more}


async def list_holders(call: Call, members: Members) -> Output:
    """ListEntitiesForPolicy. There are no groups and no boundaries."""
    policy = await _policy(call, members)
    prefix = members.get("PathPrefix", "/")
    wanted = members.get("EntityFilter")
    found = [
        each
        for each in await call.store.holders(call.account_id, policy.arn)
        if wanted in (None, type(each).__name__)
        and each.path.startswith(prefix)
        and members.get("PolicyUsageFilter") != "PermissionsBoundary"
    ]
    shown, more = page(found, members, lambda each: f"{each.kind}/{each.name}")
    users = [{"UserName": each.name, "UserId": each.identity_id} for each in shown if each.kind == User.kind]
    roles = [{"RoleName": each.name, "RoleId": each.identity_id} for each in shown if each.kind == Role.kind]
    return {"PolicyGroups": [], "PolicyUsers": users, "PolicyRoles": roles, **more}


def _path(arn: str) -> str:
    resource = arn.split(":", 5)[5].removeprefix("policy")
    return resource[: resource.rindex("/") + 1]


async def _policy(call: Call, members: Members) -> ManagedPolicy:
    """The policy that the request names, with which the requester may do this."""
    arn = members["PolicyArn"]
    try:
        found = await call.store.policy(call.account_id, arn)
    except NoSuchEntity:
        await call.check(arn)  # only who may know is told that there is none
        raise
    await call.check(found.arn, resource_context(found.tags))
    return found


def _described(policy: ManagedPolicy) -> Output:
    return {
        "PolicyName": policy.name,
        "PolicyId": policy.policy_id,
        "Arn": policy.arn,
        "Path": policy.path,
        "DefaultVersionId": _VERSION,
        "AttachmentCount": policy.attachments,
        "PermissionsBoundaryUsageCount": 0,
        "IsAttachable": True,
        "Description": policy.description,
        "CreateDate": policy.created,
        "UpdateDate": policy.created,
        "Tags": tag_list(policy.tags) or None,
    }


def _version(policy: ManagedPolicy) -> Output:
    return {"VersionId": _VERSION, "IsDefaultVersion": True, "CreateDate": policy.created}


def _of_both(name: str, handler: Callable[..., Awaitable[Output]]) -> dict[str, Handler[Call]]:
    return {name.format(kind.__name__): partial(handler, kind) for kind in (User, Role)}


OPERATIONS: Mapping[str, Handler[Call]] = {
    **_of_both("Put{}Policy", put_inline),
    **_of_both("Get{}Policy", get_inline),
    **_of_both("List{}Policies", list_inline),
    **_of_both("Delete{}Policy", delete_inline),
    **_of_both("Attach{}Policy", attach),
    **_of_both("Detach{}Policy", detach),
    **_of_both("ListAttached{}Policies", list_attached),
    "CreatePolicy": create_policy,
    "GetPolicy": get_policy,
    "GetPolicyVersion": get_policy_version,
    "ListPolicyVersions": list_policy_versions,
    "DeletePolicyVersion": delete_policy_version,
    "ListPolicyTags": list_policy_tags,
    "ListEntitiesForPolicy": list_holders,
    "ListPolicies": list_policies,
    "DeletePolicy": delete_policy,
}
