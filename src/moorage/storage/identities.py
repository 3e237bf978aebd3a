"""Accounts, users, roles, access keys and policies in the database.

A change holds its account's row until it is committed, so that the changes of one account happen one after another:
what is checked (a name that is free, a key too many, a policy still attached) is still so when it is written.
"""

import dataclasses
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    ColumnElement,
    Row,
    RowMapping,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    literal_column,
    select,
    union_all,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from moorage.auth.aws_managed import AWS_MANAGED
from moorage.auth.credentials import new_secret
from moorage.auth.identities import (
    MOST_ACCESS_KEYS,
    AccessKeyRecord,
    Account,
    Identity,
    KeyStatus,
    ManagedPolicy,
    Role,
    User,
    new_access_key_id,
)
from moorage.auth.sealing import Sealer
from moorage.errors import (
    DeleteConflict,
    EntityAlreadyExists,
    LimitExceeded,
    NoSuchEntity,
    ServiceError,
)
from moorage.storage.database import Database
from moorage.storage.identity_snapshot import (
    Changed,
    inline_name,
    purpose_of_key,
    read_difference,
    read_snapshot,
)
from moorage.storage.schema import (
    access_keys,
    accounts,
    attachments,
    identities,
    inline_policies,
    managed_policies,
)

MOST_ATTACHMENTS = 10

I = TypeVar("I", bound=Identity)  # noqa: E741 - as the values are called

_BY_NAME = select(identities).where(
    identities.c.account_id == bindparam("account_id"),
    identities.c.kind == bindparam("kind"),
    identities.c.name_key == bindparam("name_key"),  # what the index is of
    identities.c.name == bindparam("name"),
)
_DOCUMENTS = union_all(
    select(
        literal_column("1").label("attached"),
        attachments.c.policy_arn.label("name"),
        managed_policies.c.document,
    )
    .select_from(
        attachments.outerjoin(
            managed_policies,
            and_(
                managed_policies.c.arn == attachments.c.policy_arn,
                managed_policies.c.account_id == bindparam("account_id"),
            ),
        )
    )
    .where(attachments.c.identity_id == bindparam("identity_id")),
    select(literal_column("0"), inline_policies.c.name, inline_policies.c.document).where(
        inline_policies.c.identity_id == bindparam("identity_id")
    ),
)
"""An identity's policies, of which those of AWS have no document here."""


class NewAccessKey(NamedTuple):
    """The only time that the secret is told."""

    record: AccessKeyRecord
    secret_access_key: str


class IdentityStore:
    """On a `Database`, which the caller closes. `on_change` is called after each change that may have been committed,
    with what it may have changed.

    Every operation raises `NoSuchEntity` for an account, identity, key or policy that is not there.
    """

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        *,
        on_change: Callable[[Changed], None] = lambda changed: None,
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._on_change = on_change

    # --- Accounts --------------------------------------------------------------------------------------

    async def ensure_account(self, account_id: str, name: str) -> Account:
        """The account, made if it is not there yet: that of the settings, at each start."""
        account = Account(account_id=account_id, name=name, created=datetime.now(UTC))
        try:
            async with self._database.write() as connection:
                query = select(accounts).where(accounts.c.account_id == account_id)
                row = (await connection.execute(query)).mappings().one_or_none()
                if row is not None:
                    return Account(**row)
                await connection.execute(insert(accounts).values(dataclasses.asdict(account)))
        except IntegrityError:  # another process was first
            return await self.ensure_account(account_id, name)
        finally:
            self._on_change(Changed(frozenset((account_id,))))
        return account

    async def create_account(self, name: str) -> tuple[Account, NewAccessKey]:
        """A new account, and a key of its root."""
        account_id = str(secrets.randbelow(9 * 10**11) + 10**11)
        account = Account(account_id=account_id, name=name, created=datetime.now(UTC))
        try:
            async with self._database.write() as connection:
                await connection.execute(insert(accounts).values(dataclasses.asdict(account)))
                key = await self._insert_key(connection, account_id, None, None)
        finally:
            self._on_change(Changed(frozenset((account_id,))))
        return account, key

    async def account(self, account_id: str) -> Account:
        async with self._database.read() as connection:
            query = select(accounts).where(accounts.c.account_id == account_id)
            row = (await connection.execute(query)).mappings().one_or_none()
        if row is None:
            raise _no_such_account(account_id)
        return Account(**row)

    async def accounts(self) -> list[Account]:
        async with self._database.read() as connection:
            rows = await connection.execute(select(accounts).order_by(accounts.c.created))
            return [Account(**row) for row in rows.mappings()]

    # --- Users and roles -------------------------------------------------------------------------------

    async def create(self, identity: Identity) -> None:
        """Raises `EntityAlreadyExists`."""
        async with self._change(identity.account_id) as change:
            connection = change.connection
            change.identities.add(identity.identity_id)
            await _check_name_free(connection, identity)
            await connection.execute(insert(identities).values(**_columns(identity), kind=identity.kind))

    async def get(self, kind: type[I], account_id: str, name: str) -> I:
        rows = await self._database.rows(_BY_NAME, **_named(kind, account_id, name))
        return _found(kind, name, rows)

    async def find(self, kind: type[I], account_id: str, *, path_prefix: str = "/") -> list[I]:
        """By name."""
        query = (
            select(identities)
            .where(identities.c.account_id == account_id, identities.c.kind == kind.kind)
            .where(identities.c.path.startswith(path_prefix, autoescape=True))
            .order_by(identities.c.name)
        )
        async with self._database.read() as connection:
            found = [_identity(kind, row) for row in (await connection.execute(query)).mappings()]
        # SQLite's LIKE does not tell upper from lower case.
        return [identity for identity in found if identity.path.startswith(path_prefix)]

    async def update(self, kind: type[I], account_id: str, name: str, change: Callable[[I], I]) -> I:
        """Change anything but the account and id. Raises `EntityAlreadyExists` for a new name that is taken."""
        async with self._change(account_id) as transaction:
            connection = transaction.connection
            present = await _get(connection, kind, account_id, name)
            transaction.identities.add(present.identity_id)
            changed = change(present)
            if changed.name.lower() != present.name.lower():
                await _check_name_free(connection, changed)
            await connection.execute(
                update(identities)
                .where(identities.c.identity_id == present.identity_id)
                .values(_columns(changed))
            )
        return changed

    async def delete(self, kind: type[I], account_id: str, name: str) -> None:
        """Raises `DeleteConflict` while it has keys or policies."""
        async with self._change(account_id) as change:
            connection = change.connection
            identity = await _get(connection, kind, account_id, name)
            change.identities.add(identity.identity_id)
            for table, things in (
                (access_keys, "delete access keys"),
                (attachments, "detach all policies"),
                (inline_policies, "delete policies"),
            ):
                if await _count(connection, table, table.c.identity_id == identity.identity_id):
                    raise DeleteConflict(f"Cannot delete entity, must {things} first.")
            await connection.execute(
                delete(identities).where(identities.c.identity_id == identity.identity_id)
            )

    # --- Access keys: a user's, or with no user name the root's ------------------------------------------

    async def create_access_key(self, account_id: str, user_name: str | None) -> NewAccessKey:
        """Raises `LimitExceeded` when there are two."""
        async with self._change(account_id) as change:
            connection = change.connection
            identity_id = await _user_id(connection, account_id, user_name)
            change.identities.add(identity_id or account_id)
            owned = _owned_by(account_id, identity_id)
            if await _count(connection, access_keys, *owned) >= MOST_ACCESS_KEYS:
                raise LimitExceeded(f"Cannot exceed quota for AccessKeysPerUser: {MOST_ACCESS_KEYS}")
            return await self._insert_key(connection, account_id, identity_id, user_name)

    async def access_keys(self, account_id: str, user_name: str | None) -> list[AccessKeyRecord]:
        async with self._database.read() as connection:
            identity_id = await _user_id(connection, account_id, user_name)
            query = _keys().where(*_owned_by(account_id, identity_id)).order_by(access_keys.c.created)
            return [_key(row) for row in (await connection.execute(query)).mappings()]

    async def access_key(self, access_key_id: str) -> AccessKeyRecord:
        async with self._database.read() as connection:
            query = _keys().where(access_keys.c.access_key_id == access_key_id)
            row = (await connection.execute(query)).mappings().one_or_none()
        if row is None:
            raise _no_such_key(access_key_id)
        return _key(row)

    async def set_access_key_status(
        self, account_id: str, user_name: str | None, access_key_id: str, status: KeyStatus
    ) -> None:
        async with self._change(account_id) as change:
            connection = change.connection
            identity_id = await _user_id(connection, account_id, user_name)
            change.identities.add(identity_id or account_id)
            result = await connection.execute(
                update(access_keys)
                .where(*_owned_by(account_id, identity_id), access_keys.c.access_key_id == access_key_id)
                .values(status=status)
            )
            if not result.rowcount:
                raise _no_such_key(access_key_id)

    async def delete_access_key(self, account_id: str, user_name: str | None, access_key_id: str) -> None:
        async with self._change(account_id) as change:
            connection = change.connection
            identity_id = await _user_id(connection, account_id, user_name)
            change.identities.add(identity_id or account_id)
            result = await connection.execute(
                delete(access_keys).where(
                    *_owned_by(account_id, identity_id), access_keys.c.access_key_id == access_key_id
                )
            )
            if not result.rowcount:
                raise _no_such_key(access_key_id)

    async def _insert_key(
        self, connection: AsyncConnection, account_id: str, identity_id: str | None, user_name: str | None
    ) -> NewAccessKey:
        record = AccessKeyRecord(
            access_key_id=new_access_key_id(),
            account_id=account_id,
            user_name=user_name,
            status="Active",
            created=datetime.now(UTC),
        )
        secret = new_secret()
        values = dataclasses.asdict(record)
        del values["user_name"]
        values["sealed_secret"] = self._sealer.seal(
            secret.encode(), purpose=purpose_of_key(record.access_key_id)
        )
        await connection.execute(insert(access_keys).values(**values, identity_id=identity_id))
        return NewAccessKey(record, secret)

    # --- Inline policies ---------------------------------------------------------------------------------

    async def put_inline_policy(
        self, kind: type[I], account_id: str, name: str, policy_name: str, document: str
    ) -> None:
        async with self._change(account_id) as change:
            connection = change.connection
            identity = await _get(connection, kind, account_id, name)
            change.identities.add(identity.identity_id)
            await connection.execute(delete(inline_policies).where(*_inline(identity, policy_name)))
            await connection.execute(
                insert(inline_policies).values(
                    identity_id=identity.identity_id, name=policy_name, document=document
                )
            )

    async def inline_policies(self, kind: type[I], account_id: str, name: str) -> dict[str, str]:
        """Documents by their names, which are in order."""
        async with self._database.read() as connection:
            identity = await _get(connection, kind, account_id, name)
            query = (
                select(inline_policies.c.name, inline_policies.c.document)
                .where(inline_policies.c.identity_id == identity.identity_id)
                .order_by(inline_policies.c.name)
            )
            return {row.name: row.document for row in await connection.execute(query)}

    async def delete_inline_policy(self, kind: type[I], account_id: str, name: str, policy_name: str) -> None:
        async with self._change(account_id) as change:
            connection = change.connection
            identity = await _get(connection, kind, account_id, name)
            change.identities.add(identity.identity_id)
            result = await connection.execute(delete(inline_policies).where(*_inline(identity, policy_name)))
            if not result.rowcount:
                raise no_such_inline_policy(kind.kind, policy_name)

    # --- Managed policies --------------------------------------------------------------------------------

    async def create_policy(self, policy: ManagedPolicy) -> None:
        """Raises `EntityAlreadyExists`."""
        async with self._change(policy.account_id) as change:
            connection = change.connection
            change.policies.add(policy.arn)
            columns = managed_policies.c
            taken = (columns.account_id == policy.account_id, columns.name_key == policy.name.lower())
            if await _count(connection, managed_policies, *taken):
                raise EntityAlreadyExists(
                    f"A policy called {policy.name} already exists. Duplicate names are not allowed."
                )
            values = dataclasses.asdict(policy)
            del values["attachments"]
            await connection.execute(
                insert(managed_policies).values(**values, name_key=policy.name.lower(), arn=policy.arn)
            )

    async def policy(self, account_id: str, arn: str) -> ManagedPolicy:
        """One of the account or of AWS."""
        async with self._database.read() as connection:
            return await _policy(connection, account_id, arn)

    async def policies(self, account_id: str) -> list[ManagedPolicy]:
        """Those of the account, then those of AWS, each by name."""
        async with self._database.read() as connection:
            query = (
                select(managed_policies)
                .where(managed_policies.c.account_id == account_id)
                .order_by(managed_policies.c.name)
            )
            own = [_managed(row) for row in (await connection.execute(query)).mappings()]
            counts = await _attachment_counts(connection, account_id)
        return [
            dataclasses.replace(policy, attachments=counts.get(policy.arn, 0))
            for policy in (*own, *AWS_MANAGED.values())
        ]

    async def delete_policy(self, account_id: str, arn: str) -> None:
        """Raises `DeleteConflict` while it is attached."""
        async with self._change(account_id) as change:
            connection = change.connection
            policy = await _policy(connection, account_id, arn)
            change.policies.add(arn)
            if policy.attachments:
                raise DeleteConflict("Cannot delete a policy attached to entities.")
            await connection.execute(
                delete(managed_policies).where(managed_policies.c.policy_id == policy.policy_id)
            )

    async def attach(self, kind: type[I], account_id: str, name: str, policy_arn: str) -> None:
        """Raises `LimitExceeded` beyond ten. One that is attached already stays."""
        async with self._change(account_id) as change:
            connection = change.connection
            identity = await _get(connection, kind, account_id, name)
            change.identities.add(identity.identity_id)
            await _policy_without_count(connection, account_id, policy_arn)
            present = await _attached(connection, identity)
            if policy_arn in present:
                return
            if len(present) >= MOST_ATTACHMENTS:
                quota = f"PoliciesPer{kind.kind.capitalize()}"
                raise LimitExceeded(f"Cannot exceed quota for {quota}: {MOST_ATTACHMENTS}")
            await connection.execute(
                insert(attachments).values(identity_id=identity.identity_id, policy_arn=policy_arn)
            )

    async def detach(self, kind: type[I], account_id: str, name: str, policy_arn: str) -> None:
        async with self._change(account_id) as change:
            connection = change.connection
            identity = await _get(connection, kind, account_id, name)
            change.identities.add(identity.identity_id)
            result = await connection.execute(
                delete(attachments).where(
                    attachments.c.identity_id == identity.identity_id, attachments.c.policy_arn == policy_arn
                )
            )
            if not result.rowcount:
                raise _no_such_policy(policy_arn)

    async def attached(self, kind: type[I], account_id: str, name: str) -> list[str]:
        """ARNs, in order."""
        async with self._database.read() as connection:
            identity = await _get(connection, kind, account_id, name)
            return await _attached(connection, identity)

    async def holders(self, account_id: str, policy_arn: str) -> list[Identity]:
        """The users and roles of the account that a policy is attached to, by name."""
        query = (
            select(identities)
            .join(attachments)
            .where(identities.c.account_id == account_id, attachments.c.policy_arn == policy_arn)
            .order_by(identities.c.name)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [_identity(User, row) if row["kind"] == User.kind else _identity(Role, row) for row in rows]

    async def documents(self, identity: Identity) -> dict[str, str]:
        """All policies that an identity has, attached and inline, by the names that `snapshot` gives them."""
        rows = await self._database.rows(
            _DOCUMENTS, account_id=identity.account_id, identity_id=identity.identity_id
        )
        managed = {row.name: row.document for row in rows if row.attached}
        for arn in managed.keys() & AWS_MANAGED.keys():
            managed[arn] = AWS_MANAGED[arn].document
        missing = [arn for arn, document in managed.items() if document is None]
        if missing:
            raise _no_such_policy(missing[0])
        inline = {row.name: row.document for row in rows if not row.attached}
        return {arn: managed[arn] for arn in sorted(managed)} | {
            inline_name(identity.arn, own): inline[own] for own in sorted(inline)
        }

    # --- All of it ---------------------------------------------------------------------------------------

    async def snapshot(self) -> dict[str, Any]:
        """Everything that a gateway needs to verify and authorise: see `moorage.storage.identity_snapshot`."""
        async with self._database.read() as connection:
            return await read_snapshot(connection, self._sealer)

    async def difference(self, changed: Changed) -> dict[str, Any]:
        """What has changed of `snapshot`, as it is now."""
        async with self._database.read() as connection:
            return await read_difference(connection, self._sealer, changed)

    @asynccontextmanager
    async def _change(self, account_id: str) -> AsyncIterator["_Change"]:
        change = _Change()
        try:
            async with self._database.write() as connection:
                query = (
                    select(accounts.c.account_id).where(accounts.c.account_id == account_id).with_for_update()
                )
                if await connection.scalar(query) is None:
                    raise _no_such_account(account_id)
                change.connection = connection
                yield change
        except ServiceError:
            raise  # nothing was written
        except BaseException:  # whether a commit that was broken off has taken place is not known
            self._on_change(change.changed)
            raise
        else:
            self._on_change(change.changed)


class _Change:
    """A transaction, and what it changes."""

    def __init__(self) -> None:
        self.connection: AsyncConnection
        self.identities: set[str] = set()
        self.policies: set[str] = set()

    @property
    def changed(self) -> Changed:
        return Changed(frozenset(self.identities), frozenset(self.policies))


def no_such_inline_policy(kind: str, policy_name: str) -> NoSuchEntity:
    return NoSuchEntity(f"The {kind} policy with name {policy_name} cannot be found.")


def _no_such_account(account_id: str) -> NoSuchEntity:
    return NoSuchEntity(f"The account {account_id} cannot be found.")


def _no_such_key(access_key_id: str) -> NoSuchEntity:
    return NoSuchEntity(f"The Access Key with id {access_key_id} cannot be found.")


def _no_such_policy(arn: str) -> NoSuchEntity:
    return NoSuchEntity(f"Policy {arn} was not found.")


def _columns(identity: Identity) -> dict[str, Any]:
    return {**dataclasses.asdict(identity), "name_key": identity.name.lower()}


def _identity(kind: type[I], row: RowMapping) -> I:
    return kind(**{field.name: row[field.name] for field in dataclasses.fields(kind)})


def _managed(row: RowMapping) -> ManagedPolicy:
    names = {field.name for field in dataclasses.fields(ManagedPolicy)}
    return ManagedPolicy(**{name: value for name, value in row.items() if name in names})


def _keys() -> Any:
    return select(
        *(access_keys.c[name] for name in ("access_key_id", "account_id", "status", "created")),
        identities.c.name.label("user_name"),
    ).select_from(access_keys.outerjoin(identities))


def _key(row: RowMapping) -> AccessKeyRecord:
    return AccessKeyRecord(**row)


def _owned_by(account_id: str, identity_id: str | None) -> tuple[ColumnElement[bool], ...]:
    columns = access_keys.c
    return columns.account_id == account_id, columns.identity_id.is_not_distinct_from(identity_id)


def _inline(identity: Identity, policy_name: str) -> tuple[ColumnElement[bool], ...]:
    columns = inline_policies.c
    return columns.identity_id == identity.identity_id, columns.name == policy_name


async def _count(connection: AsyncConnection, table: Table, *conditions: ColumnElement[bool]) -> int:
    query = select(func.count(literal(1))).select_from(table).where(*conditions)
    return int((await connection.execute(query)).scalar_one())


async def _check_name_free(connection: AsyncConnection, identity: Identity) -> None:
    columns = identities.c
    if await _count(
        connection,
        identities,
        columns.account_id == identity.account_id,
        columns.kind == identity.kind,
        columns.name_key == identity.name.lower(),
    ):
        raise EntityAlreadyExists(f"{identity.kind.capitalize()} with name {identity.name} already exists.")


async def _get(connection: AsyncConnection, kind: type[I], account_id: str, name: str) -> I:
    return _found(kind, name, (await connection.execute(_BY_NAME, _named(kind, account_id, name))).all())


def _named(kind: type[Any], account_id: str, name: str) -> dict[str, str]:
    """The parameters of `_BY_NAME`."""
    return {"account_id": account_id, "kind": kind.kind, "name": name, "name_key": name.lower()}


def _found(kind: type[I], name: str, rows: Sequence[Row[Any]]) -> I:
    if not rows:
        raise NoSuchEntity(f"The {kind.kind} with name {name} cannot be found.")
    return _identity(kind, rows[0]._mapping)


async def _user_id(connection: AsyncConnection, account_id: str, user_name: str | None) -> str | None:
    if user_name is None:
        return None
    return (await _get(connection, User, account_id, user_name)).identity_id


async def _policy(connection: AsyncConnection, account_id: str, arn: str) -> ManagedPolicy:
    policy = await _policy_without_count(connection, account_id, arn)
    query = (
        select(func.count(literal(1)))
        .select_from(attachments.join(identities))
        .where(attachments.c.policy_arn == arn, identities.c.account_id == account_id)
    )
    return dataclasses.replace(policy, attachments=(await connection.execute(query)).scalar_one())


async def _policy_without_count(connection: AsyncConnection, account_id: str, arn: str) -> ManagedPolicy:
    query = select(managed_policies).where(
        managed_policies.c.account_id == account_id, managed_policies.c.arn == arn
    )
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None and arn not in AWS_MANAGED:
        raise _no_such_policy(arn)
    return AWS_MANAGED[arn] if row is None else _managed(row)


async def _attachment_counts(connection: AsyncConnection, account_id: str) -> Mapping[str, int]:
    query = (
        select(attachments.c.policy_arn, func.count(literal(1)))
        .select_from(attachments.join(identities))
        .where(identities.c.account_id == account_id)
        .group_by(attachments.c.policy_arn)
    )
    return {row[0]: row[1] for row in await connection.execute(query)}


async def _attached(connection: AsyncConnection, identity: Identity) -> list[str]:
    query = (
        select(attachments.c.policy_arn)
        .where(attachments.c.identity_id == identity.identity_id)
        .order_by(attachments.c.policy_arn)
    )
    return list((await connection.scalars(query)).all())
