"""Access keys of users, and of the account's root."""

from collections.abc import Mapping

from moorage.auth.identities import AccessKeyRecord, User
from moorage.controller.iam.base import Call, Members, Output, page
from moorage.controller.iam.users_and_roles import with_user_name
from moorage.controller.query import Handler
from moorage.errors import AccessDeniedException, NoSuchEntity


async def create_access_key(call: Call, members: Members) -> Output:
    user_name = await _owner(call, members)
    record, secret = await call.store.create_access_key(call.account_id, user_name)
    return {"AccessKey": {**_described(record), "SecretAccessKey": secret}}


async def list_access_keys(call: Call, members: Members) -> Output:
    user_name = await _owner(call, members)
    keys = await call.store.access_keys(call.account_id, user_name)
    shown, more = page(keys, members, lambda key: key.access_key_id)
    return {"UserName": user_name, "AccessKeyMetadata": [_described(key) for key in shown], **more}


async def update_access_key(call: Call, members: Members) -> Output:
    user_name = await _owner(call, members)
    await call.store.set_access_key_status(
        call.account_id, user_name, members["AccessKeyId"], members["Status"]
    )
    return {}


async def delete_access_key(call: Call, members: Members) -> Output:
    user_name = await _owner(call, members)
    await call.store.delete_access_key(call.account_id, user_name, members["AccessKeyId"])
    return {}


async def get_access_key_last_used(call: Call, members: Members) -> Output:
    """When a key was used is not kept."""
    key_id = members["AccessKeyId"]
    try:
        record = await call.store.access_key(key_id)
        if record.account_id != call.account_id:
            raise NoSuchEntity(key_id)
    except NoSuchEntity:
        # As IAM does it, for anyone: what key ids there are is not told.
        raise AccessDeniedException(
            f"User: {call.requester.principal_arn} is not authorized to perform: iam:GetAccessKeyLastUsed "
            f"on resource: access key {key_id}"
        ) from None
    if record.user_name is None:
        await call.check(f"arn:aws:iam::{call.account_id}:root")
    else:
        await call.identity(User, {"UserName": record.user_name})
    return {"UserName": record.user_name, "AccessKeyLastUsed": {"ServiceName": "N/A", "Region": "N/A"}}


async def _owner(call: Call, members: Members) -> str | None:
    """The user whose keys they are, with which the requester may do this; None for the root, by itself."""
    if "UserName" not in members and call.requester.is_root:
        return None
    return (await call.identity(User, with_user_name(call, members))).name


def _described(key: AccessKeyRecord) -> Output:
    return {
        "UserName": key.user_name,
        "AccessKeyId": key.access_key_id,
        "Status": key.status,
        "CreateDate": key.created,
    }


OPERATIONS: Mapping[str, Handler[Call]] = {
    "CreateAccessKey": create_access_key,
    "ListAccessKeys": list_access_keys,
    "UpdateAccessKey": update_access_key,
    "DeleteAccessKey": delete_access_key,
    "GetAccessKeyLastUsed": get_access_key_last_used,
}
