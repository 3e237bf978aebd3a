"""A store of identities for the tests of IAM and STS, and who calls them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moorage.auth.identities import Role, User, new_role_id, new_user_id
from moorage.auth.sealing import Sealer
from moorage.controller.permissions import Requester
from moorage.storage.database import open_database
from moorage.storage.identities import IdentityStore

ACCOUNT = "111122223333"
OTHER = "444455556666"
NOW = datetime(2026, 3, 1, 6, 30, tzinfo=UTC)
SEALER = Sealer(b"k" * 32)
ADMIN = "arn:aws:iam::aws:policy/AdministratorAccess"
ROOT = Requester(account_id=ACCOUNT, principal_arn=f"arn:aws:iam::{ACCOUNT}:root", user_id=ACCOUNT)
OTHER_ROOT = Requester(account_id=OTHER, principal_arn=f"arn:aws:iam::{OTHER}:root", user_id=OTHER)


@asynccontextmanager
async def identity_store(folder: Path) -> AsyncIterator[IdentityStore]:
    database = await open_database(f"sqlite+aiosqlite:///{folder / 'moorage.db'}")
    store = IdentityStore(database, SEALER)
    await store.ensure_account(ACCOUNT, "main")
    await store.ensure_account(OTHER, "other")
    yield store
    await database.close()


async def user(
    store: IdentityStore, name: str, *, account_id: str = ACCOUNT, document: str | None = None, **changes: Any
) -> Requester:
    """A new user, with an inline policy, as the one who calls."""
    made = User(account_id=account_id, identity_id=new_user_id(), name=name, created=NOW, **changes)
    await store.create(made)
    if document is not None:
        await store.put_inline_policy(User, account_id, name, "own", document)
    return Requester(account_id=account_id, principal_arn=made.arn, user_id=made.identity_id)


async def role(store: IdentityStore, name: str, trust_policy: str, **changes: Any) -> Role:
    made = Role(
        account_id=ACCOUNT,
        identity_id=new_role_id(),
        name=name,
        created=NOW,
        trust_policy=trust_policy,
        **changes,
    )
    await store.create(made)
    return made
