"""What gateways are told of identities, as one JSON document. It holds secrets in the clear.

* `access_keys`: those that are active, by id: `secret`, `account_id`, `principal_arn`, `user_id`.
* `identities`: by ARN, roots included: `account_id`, `id`, `kind`, `tags` and `policies`, which are keys of:
* `policies`: documents. A managed one's key is its ARN, an inline one's `<identity's ARN>/policy/<name>`.
"""

import json
from typing import Any

from sqlalchemy import RowMapping, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from moorage.auth.aws_managed import AWS_MANAGED
from moorage.auth.identities import identity_arn
from moorage.auth.sealing import Sealer, UnsealError
from moorage.storage.schema import (
    access_keys,
    accounts,
    attachments,
    identities,
    inline_policies,
    managed_policies,
)


async def read_snapshot(connection: AsyncConnection, sealer: Sealer) -> dict[str, Any]:
    """The state at one moment. The connection's transaction has done nothing yet.

    Raises:
        UnsealError: a key was sealed by another sealer.
    """
    if connection.dialect.name == "postgresql":  # SQLite's readers always see one state
        await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    account_ids = (await connection.scalars(select(accounts.c.account_id))).all()
    rows = (await connection.execute(select(identities))).mappings().all()
    by_id = {row["identity_id"]: _entry(row) for row in rows}
    arns = {row["identity_id"]: _arn(row) for row in rows}
    documents = {arn: json.loads(policy.document) for arn, policy in AWS_MANAGED.items()}
    for managed in await connection.execute(select(managed_policies)):
        documents[managed.arn] = json.loads(managed.document)
    for attached in await connection.execute(select(attachments)):
        by_id[attached.identity_id]["policies"].append(attached.policy_arn)
    for inline in await connection.execute(select(inline_policies)):
        name = inline_name(arns[inline.identity_id], inline.name)
        documents[name] = json.loads(inline.document)
        by_id[inline.identity_id]["policies"].append(name)
    keys = await connection.execute(select(access_keys).where(access_keys.c.status == "Active"))
    return {
        "access_keys": {
            key.access_key_id: {
                "secret": _secret(sealer, key.access_key_id, key.sealed_secret),
                "account_id": key.account_id,
                "principal_arn": arns[key.identity_id] if key.identity_id else _root_arn(key.account_id),
                "user_id": key.identity_id or key.account_id,
            }
            for key in keys
        },
        "identities": {_root_arn(account_id): _root(account_id) for account_id in account_ids}
        | {arns[identity_id]: entry for identity_id, entry in by_id.items()},
        "policies": documents,
    }


def inline_name(arn: str, policy_name: str) -> str:
    """What an inline policy of an identity is called beside others."""
    return f"{arn}/policy/{policy_name}"


def purpose_of_key(access_key_id: str) -> str:
    """What the secret of an access key is sealed for."""
    return f"access-key {access_key_id}"


def _secret(sealer: Sealer, access_key_id: str, sealed: str) -> str:
    try:
        return sealer.unseal(sealed, purpose=purpose_of_key(access_key_id)).decode()
    except UnsealError as error:
        raise UnsealError(
            f"the secret of {access_key_id} was sealed under another key: restore the file secret-key of the data "
            "directory, or the setting secret_key"
        ) from error


def _root_arn(account_id: str) -> str:
    return f"arn:aws:iam::{account_id}:root"


def _root(account_id: str) -> dict[str, Any]:
    return {"account_id": account_id, "id": account_id, "kind": "root", "tags": {}, "policies": []}


def _arn(row: RowMapping) -> str:
    return identity_arn(row["kind"], row["account_id"], row["path"], row["name"])


def _entry(row: RowMapping) -> dict[str, Any]:
    return {
        "account_id": row["account_id"],
        "id": row["identity_id"],
        "kind": row["kind"],
        "tags": row["tags"],
        "policies": [],
    }
