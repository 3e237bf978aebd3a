"""Users and roles, and their tags."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from moorage.auth.identities import Identity, Role, User, new_role_id, new_user_id
from moorage.controller.iam.base import (
    NAME,
    Call,
    Members,
    Output,
    encoded,
    page,
    refuse_boundary,
    request_context,
    tag_list,
    tags_of,
)
from moorage.controller.iam.trust import check_trust_policy
from moorage.controller.query import Handler
from moorage.errors import ValidationError
from moorage.storage.identities import I


async def create_user(call: Call, members: Members) -> Output:
    refuse_boundary(members)
    user = User(
        account_id=call.account_id,
        identity_id=new_user_id(),
        name=members["UserName"],
        path=members.get("Path", "/"),
        created=call.time,
        tags=tags_of(members),
    )
    await call.check(user.arn, request_context(members))
    await call.store.create(user)
    return {"User": described(user)}


async def create_role(call: Call, members: Members) -> Output:
    refuse_boundary(members)
    role = Role(
        account_id=call.account_id,
        identity_id=new_role_id(),
        name=members["RoleName"],
        path=members.get("Path", "/"),
        created=call.time,
        tags=tags_of(members),
        trust_policy=members["AssumeRolePolicyDocument"],
        description=members.get("Description"),
        max_session_seconds=members.get("MaxSessionDuration", 3600),
    )
    await call.check(role.arn, request_context(members))
    await check_trust_policy(call.store, role.trust_policy)
    await call.store.create(role)
    return {"Role": described(role)}


async def get_user(call: Call, members: Members) -> Output:
    if "UserName" not in members and call.requester.is_root:
        account = await call.store.account(call.account_id)
        return {
            "User": {"UserId": account.account_id, "Arn": account.root_arn, "CreateDate": account.created}
        }
    return {"User": described(await call.identity(User, with_user_name(call, members)))}


async def get_role(call: Call, members: Members) -> Output:
    return {"Role": described(await call.identity(Role, members))}


async def find(kind: type[I], call: Call, members: Members) -> Output:
    prefix = members.get("PathPrefix", "/")
    await call.check(call.arn(kind.kind, "", path=prefix))
    found = await call.store.find(kind, call.account_id, path_prefix=prefix)
    shown, more = page(found, members, lambda identity: identity.name)
    described_without_tags = [{**described(identity), "Tags": None} for identity in shown]
    return {f"{kind.kind.capitalize()}s": described_without_tags, **more}


async def delete(kind: type[I], call: Call, members: Members) -> Output:
    identity = await call.identity(kind, members)
    await call.store.delete(kind, call.account_id, identity.name)
    return {}


async def update_user(call: Call, members: Members) -> Output:
    user = await call.identity(User, members)
    changed = replace(
        user, name=members.get("NewUserName", user.name), path=members.get("NewPath", user.path)
    )
    await call.check(changed.arn)
    await call.store.update(
        User, call.account_id, user.name, lambda found: replace(found, name=changed.name, path=changed.path)
    )
    return {}


async def update_role(call: Call, members: Members) -> Output:
    role = await call.identity(Role, members)
    names = {"Description": "description", "MaxSessionDuration": "max_session_seconds"}
    changes = {names[member]: value for member, value in members.items() if member in names}
    await call.store.update(Role, call.account_id, role.name, lambda found: replace(found, **changes))
    return {}


async def update_trust_policy(call: Call, members: Members) -> Output:
    role = await call.identity(Role, members)
    document = members["PolicyDocument"]
    await check_trust_policy(call.store, document)
    await call.store.update(
        Role, call.account_id, role.name, lambda found: replace(found, trust_policy=document)
    )
    return {}


async def tag(kind: type[I], call: Call, members: Members) -> Output:
    identity = await call.identity(kind, members)
    await call.store.update(
        kind,
        call.account_id,
        identity.name,
        lambda found: replace(found, tags=tags_of(members, found.tags)),
    )
    return {}


async def untag(kind: type[I], call: Call, members: Members) -> Output:
    identity = await call.identity(kind, members)
    gone = {key.lower() for key in members["TagKeys"]}

    def change(found: I) -> I:
        return replace(found, tags={key: v for key, v in found.tags.items() if key.lower() not in gone})

    await call.store.update(kind, call.account_id, identity.name, change)
    return {}


async def list_tags(kind: type[I], call: Call, members: Members) -> Output:
    identity = await call.identity(kind, members)
    shown, more = page(tag_list(identity.tags), members, lambda each: str(each["Key"]))
    return {"Tags": shown, **more}


def described(identity: Identity) -> Output:
    output: dict[str, Any] = {
        "Path": identity.path,
        NAME[identity.kind]: identity.name,
        f"{identity.kind.capitalize()}Id": identity.identity_id,
        "Arn": identity.arn,
        "CreateDate": identity.created,
        "Tags": tag_list(identity.tags) or None,
    }
    if isinstance(identity, Role):
        output |= {
            "AssumeRolePolicyDocument": encoded(identity.trust_policy),
            "Description": identity.description,
            "MaxSessionDuration": identity.max_session_seconds,
        }
    return output


def with_user_name(call: Call, members: Members) -> Members:
    """The members with the requester's own user name, where the request names no user.

    Raises:
        ValidationError: the requester is no user.
    """
    if "UserName" in members:
        return members
    if call.requester.is_root or call.requester.is_role:
        raise ValidationError("Must specify userName when calling with non-User credentials")
    return {**members, "UserName": call.requester.identity_name}


OPERATIONS: Mapping[str, Handler[Call]] = {
    "CreateUser": create_user,
    "GetUser": get_user,
    "ListUsers": partial(find, User),
    "UpdateUser": update_user,
    "DeleteUser": partial(delete, User),
    "TagUser": partial(tag, User),
    "UntagUser": partial(untag, User),
    "ListUserTags": partial(list_tags, User),
    "CreateRole": create_role,
    "GetRole": get_role,
    "ListRoles": partial(find, Role),
    "UpdateRole": update_role,
    "UpdateAssumeRolePolicy": update_trust_policy,
    "DeleteRole": partial(delete, Role),
    "TagRole": partial(tag, Role),
    "UntagRole": partial(untag, Role),
    "ListRoleTags": partial(list_tags, Role),
}
