"""What gateways are told of identities, as JSON. It holds secrets in the clear.

* `identities`: by id, roots included, whose id is that of their account: `arn`, `account_id`, `id`, `kind`, `tags`,
  `access_keys` (the secrets of those that are active, by key id), `attached` (ARNs of managed policies) and `inline`
  (documents, by the name that `inline_name` gives them).
* `policies`: the documents of managed policies, by ARN.

A snapshot has all of them, a difference those that have changed, with null for those that are no more.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Column, RowMapping, Select, select, text
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

_AT_ONCE = 500
"""Ids in one query."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change may have changed: ids of identities or accounts, and ARNs of managed policies."""

    identities: frozenset[str] = frozenset()
    policies: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.identities or self.policies)

    def __or__(self, other: "Changed") -> "Changed":
        return Changed(self.identities | other.identities, self.policies | other.policies)


async def read_snapshot(connection: AsyncConnection, sealer: Sealer) -> dict[str, Any]:
    """The state at one moment. The connection's transaction has done nothing yet.

    Raises:
        UnsealError: a key was sealed by another sealer.
    """
    await _see_one_state(connection)
    found = await _identities(connection, sealer, None)
    return {"identities": found, "policies": _of_aws(AWS_MANAGED) | await _policies(connection, None)}


async def read_difference(connection: AsyncConnection, sealer: Sealer, changed: Changed) -> dict[str, Any]:
    """What has changed, as it is now. Otherwise like `read_snapshot`."""
    await _see_one_state(connection)
    found: dict[str, Any] = dict.fromkeys(changed.identities)
    for ids in _in_lots(changed.identities):
        found |= await _identities(connection, sealer, ids)
    documents = dict.fromkeys(changed.policies) | _of_aws(changed.policies & AWS_MANAGED.keys())
    for arns in _in_lots(changed.policies):
        documents |= await _policies(connection, arns)
    return {"identities": found, "policies": documents}


async def _see_one_state(connection: AsyncConnection) -> None:
    if connection.dialect.name == "postgresql":  # SQLite's readers always do
        await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))


async def _identities(
    connection: AsyncConnection, sealer: Sealer, ids: list[str] | None
) -> dict[str, dict[str, Any]]:
    """Those with these ids, or all."""
    account_ids = await connection.scalars(_only(select(accounts.c.account_id), accounts.c.account_id, ids))
    found = {account_id: _root(account_id) for account_id in account_ids}
    rows = await connection.execute(_only(select(identities), identities.c.identity_id, ids))
    found |= {row["identity_id"]: _entry(row) for row in rows.mappings()}
    in_order = select(attachments).order_by(attachments.c.policy_arn)
    for attached in await connection.execute(_only(in_order, attachments.c.identity_id, ids)):
        found[attached.identity_id]["attached"].append(attached.policy_arn)
    for inline in await connection.execute(
        _only(select(inline_policies), inline_policies.c.identity_id, ids)
    ):
        entry = found[inline.identity_id]
        entry["inline"][inline_name(entry["arn"], inline.name)] = json.loads(inline.document)
    active = select(access_keys).where(access_keys.c.status == "Active")
    if ids is None:
        keys = list(await connection.execute(active))
    else:  # the index is by account and identity, which is null for a root's keys
        of_account = access_keys.c.account_id.in_({each["account_id"] for each in found.values()})
        keys = list(await connection.execute(active.where(of_account, access_keys.c.identity_id.in_(ids))))
        of_root = access_keys.c.account_id.in_(ids)
        keys += await connection.execute(active.where(of_root, access_keys.c.identity_id.is_(None)))
    for key in keys:
        owner = found[key.identity_id or key.account_id]
        owner["access_keys"][key.access_key_id] = _secret(sealer, key.access_key_id, key.sealed_secret)
    return found


async def _policies(connection: AsyncConnection, arns: list[str] | None) -> dict[str, Any]:
    query = select(managed_policies.c.arn, managed_policies.c.document)
    rows = await connection.execute(_only(query, managed_policies.c.arn, arns))
    return {row.arn: json.loads(row.document) for row in rows}


def _of_aws(arns: Iterable[str]) -> dict[str, Any]:
    return {arn: json.loads(AWS_MANAGED[arn].document) for arn in arns}


def _only(query: "Select[Any]", column: "Column[str]", values: list[str] | None) -> "Select[Any]":
    return query if values is None else query.where(column.in_(values))


def _in_lots(values: Iterable[T]) -> Iterable[list[T]]:
    listed = list(values)
    return (listed[at : at + _AT_ONCE] for at in range(0, len(listed), _AT_ONCE))


def merged(snapshot: Mapping[str, Any], difference: Mapping[str, Any]) -> dict[str, Any]:
    """The snapshot after a difference."""
    return {
        what: {key: value for key, value in (snapshot[what] | difference[what]).items() if value is not None}
        for what in ("identities", "policies")
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


def _root(account_id: str) -> dict[str, Any]:
    return {
        "arn": f"arn:aws:iam::{account_id}:root",
        "account_id": account_id,
        "id": account_id,
        "kind": "root",
        "tags": {},
        "access_keys": {},
        "attached": [],
        "inline": {},
    }


def _entry(row: RowMapping) -> dict[str, Any]:
    return {
        "arn": identity_arn(row["kind"], row["account_id"], row["path"], row["name"]),
        "account_id": row["account_id"],
        "id": row["identity_id"],
        "kind": row["kind"],
        "tags": row["tags"],
        "access_keys": {},
        "attached": [],
        "inline": {},
    }
