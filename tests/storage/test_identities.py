"""Accounts, users, roles, keys and policies, on each database."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select

from moorage.auth.identities import ManagedPolicy, Role, User, new_policy_id, new_role_id, new_user_id
from moorage.auth.sealing import Sealer, UnsealError
from moorage.errors import DeleteConflict, EntityAlreadyExists, LimitExceeded, NoSuchEntity
from moorage.storage import schema
from moorage.storage.database import Database, open_database
from moorage.storage.identities import IdentityStore

ACCOUNT = "111122223333"
OTHER = "444455556666"
NOW = datetime(2026, 3, 1, 6, 30, tzinfo=UTC)
ADMIN = "arn:aws:iam::aws:policy/AdministratorAccess"
ALLOW = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'


def user(name: str = "ann", *, account_id: str = ACCOUNT, path: str = "/", **changes: Any) -> User:
    return User(
        account_id=account_id, identity_id=new_user_id(), name=name, path=path, created=NOW, **changes
    )


def role(name: str = "deployer", *, path: str = "/", **changes: Any) -> Role:
    return Role(
        account_id=ACCOUNT,
        identity_id=new_role_id(),
        name=name,
        path=path,
        created=NOW,
        trust_policy=ALLOW,
        **changes,
    )


def policy(name: str = "buckets", *, path: str = "/") -> ManagedPolicy:
    return ManagedPolicy(
        account_id=ACCOUNT, policy_id=new_policy_id(), name=name, path=path, document=ALLOW, created=NOW
    )


@dataclass
class Fixture:
    store: IdentityStore
    database: Database
    changes: int = 0


@pytest.fixture
async def fixture(database_url: str) -> AsyncIterator[Fixture]:
    database = await open_database(database_url)
    found: Fixture

    def count() -> None:
        found.changes += 1

    found = Fixture(IdentityStore(database, Sealer(b"k" * 32), on_change=count), database)
    await found.store.ensure_account(ACCOUNT, "main")
    await found.store.ensure_account(OTHER, "other")
    found.changes = 0
    yield found
    await database.close()


@pytest.fixture
def store(fixture: Fixture) -> IdentityStore:
    return fixture.store


# --- Users and roles -----------------------------------------------------------------------------------


async def test_what_was_created_comes_back_equal(store: IdentityStore) -> None:
    ann = user(path="/team/red/", tags={"a": "b"})
    deployer = role(tags={"c": "d"}, description="It deploys.", max_session_seconds=7200)
    await store.create(ann)
    await store.create(deployer)
    assert await store.get(User, ACCOUNT, "ann") == ann
    assert await store.get(Role, ACCOUNT, "deployer") == deployer
    assert ann.arn == f"arn:aws:iam::{ACCOUNT}:user/team/red/ann"


async def test_names_are_unique_per_account_and_kind_whatever_their_case(store: IdentityStore) -> None:
    await store.create(user("Ann"))
    with pytest.raises(EntityAlreadyExists, match="User with name aNN already exists"):
        await store.create(user("aNN", path="/other/"))
    await store.create(user("Ann", account_id=OTHER))
    await store.create(role("Ann"))
    with pytest.raises(NoSuchEntity, match="The user with name ann cannot be found"):
        await store.get(User, ACCOUNT, "ann")


async def test_identities_are_found_by_path_in_order(store: IdentityStore) -> None:
    for name, path in (("b", "/x/"), ("a", "/x/y/"), ("C", "/"), ("d", "/X/"), ("e", "/x_/")):
        await store.create(user(name, path=path))
    await store.create(user("z", account_id=OTHER))
    await store.create(role("r", path="/x/"))

    async def names(prefix: str) -> list[str]:
        return [found.name for found in await store.find(User, ACCOUNT, path_prefix=prefix)]

    assert await names("/") == ["C", "a", "b", "d", "e"]
    assert await names("/x/") == ["a", "b"]
    assert await names("/x_") == ["e"]
    assert await names("/nowhere/") == []


async def test_an_update_changes_what_it_says(store: IdentityStore) -> None:
    ann = user()
    await store.create(ann)
    await store.create(user("bob"))
    changed = await store.update(User, ACCOUNT, "ann", lambda u: replace(u, name="Anna", tags={"x": "1"}))
    assert changed == replace(ann, name="Anna", tags={"x": "1"})
    assert await store.get(User, ACCOUNT, "Anna") == changed
    await store.update(User, ACCOUNT, "Anna", lambda u: replace(u, name="anna", path="/p/"))
    with pytest.raises(EntityAlreadyExists):
        await store.update(User, ACCOUNT, "anna", lambda u: replace(u, name="BOB"))
    with pytest.raises(NoSuchEntity):
        await store.update(User, ACCOUNT, "ann", lambda u: u)


async def test_of_many_updates_at_once_none_is_lost(store: IdentityStore) -> None:
    await store.create(role())

    def tag(n: int) -> Callable[[Role], Role]:
        return lambda found: replace(found, tags={**found.tags, str(n): "x"})

    await asyncio.gather(*(store.update(Role, ACCOUNT, "deployer", tag(n)) for n in range(10)))
    assert set((await store.get(Role, ACCOUNT, "deployer")).tags) == {str(n) for n in range(10)}


async def test_of_many_creating_one_name_at_once_one_wins(store: IdentityStore) -> None:
    results = await asyncio.gather(*(store.create(user()) for _ in range(8)), return_exceptions=True)
    assert results.count(None) == 1
    assert sum(isinstance(result, EntityAlreadyExists) for result in results) == 7


async def test_what_still_has_something_is_not_deleted(store: IdentityStore) -> None:
    await store.create(user())
    key = (await store.create_access_key(ACCOUNT, "ann")).record.access_key_id
    await store.attach(User, ACCOUNT, "ann", ADMIN)
    await store.put_inline_policy(User, ACCOUNT, "ann", "p", ALLOW)
    with pytest.raises(DeleteConflict, match="must delete access keys first"):
        await store.delete(User, ACCOUNT, "ann")
    await store.delete_access_key(ACCOUNT, "ann", key)
    with pytest.raises(DeleteConflict, match="must detach all policies first"):
        await store.delete(User, ACCOUNT, "ann")
    await store.detach(User, ACCOUNT, "ann", ADMIN)
    with pytest.raises(DeleteConflict, match="must delete policies first"):
        await store.delete(User, ACCOUNT, "ann")
    await store.delete_inline_policy(User, ACCOUNT, "ann", "p")
    await store.delete(User, ACCOUNT, "ann")
    with pytest.raises(NoSuchEntity):
        await store.delete(User, ACCOUNT, "ann")


# --- Access keys ---------------------------------------------------------------------------------------


async def test_a_user_has_two_keys_at_most(store: IdentityStore) -> None:
    await store.create(user())
    results = await asyncio.gather(
        *(store.create_access_key(ACCOUNT, "ann") for _ in range(4)), return_exceptions=True
    )
    assert sum(isinstance(result, LimitExceeded) for result in results) == 2
    keys = await store.access_keys(ACCOUNT, "ann")
    assert [(key.user_name, key.status) for key in keys] == [("ann", "Active")] * 2
    await store.delete_access_key(ACCOUNT, "ann", keys[0].access_key_id)
    await store.create_access_key(ACCOUNT, "ann")


async def test_secrets_are_sealed_for_their_key(fixture: Fixture) -> None:
    await fixture.store.create(user())
    key, secret = await fixture.store.create_access_key(ACCOUNT, "ann")
    async with fixture.database.read() as connection:
        sealed = await connection.scalar(select(schema.access_keys.c.sealed_secret))
    assert sealed is not None
    assert secret not in sealed
    snapshot = await fixture.store.snapshot()
    assert snapshot["access_keys"][key.access_key_id]["secret"] == secret
    with pytest.raises(UnsealError, match=f"secret of {key.access_key_id} .* restore the file secret-key"):
        await IdentityStore(fixture.database, Sealer(b"l" * 32)).snapshot()


async def test_a_key_is_only_changed_in_its_users_name(store: IdentityStore) -> None:
    await store.create(user())
    await store.create(user("bob"))
    key_id = (await store.create_access_key(ACCOUNT, "ann")).record.access_key_id
    for account_id, name in ((ACCOUNT, "bob"), (ACCOUNT, None), (OTHER, None)):
        with pytest.raises(NoSuchEntity, match=key_id):
            await store.delete_access_key(account_id, name, key_id)
        with pytest.raises(NoSuchEntity, match=key_id):
            await store.set_access_key_status(account_id, name, key_id, "Inactive")
    await store.set_access_key_status(ACCOUNT, "ann", key_id, "Inactive")
    assert (await store.access_key(key_id)).status == "Inactive"
    assert (await store.snapshot())["access_keys"] == {}
    with pytest.raises(NoSuchEntity):
        await store.access_key("AKIANOTHING")


# --- Policies ------------------------------------------------------------------------------------------


async def test_inline_policies_are_put_over_and_deleted(store: IdentityStore) -> None:
    await store.create(role())
    await store.put_inline_policy(Role, ACCOUNT, "deployer", "b", "{}")
    await store.put_inline_policy(Role, ACCOUNT, "deployer", "a", ALLOW)
    await store.put_inline_policy(Role, ACCOUNT, "deployer", "b", ALLOW)
    assert await store.inline_policies(Role, ACCOUNT, "deployer") == {"a": ALLOW, "b": ALLOW}
    await store.delete_inline_policy(Role, ACCOUNT, "deployer", "a")
    with pytest.raises(NoSuchEntity, match="The role policy with name a cannot be found"):
        await store.delete_inline_policy(Role, ACCOUNT, "deployer", "a")
    assert list(await store.inline_policies(Role, ACCOUNT, "deployer")) == ["b"]


async def test_managed_policies_are_attached_and_counted(store: IdentityStore) -> None:
    made = policy(path="/team/")
    await store.create_policy(made)
    await store.create(user())
    await store.create(role())
    for _ in range(2):
        await store.attach(User, ACCOUNT, "ann", made.arn)
    await store.attach(Role, ACCOUNT, "deployer", made.arn)
    await store.attach(Role, ACCOUNT, "deployer", ADMIN)
    assert await store.attached(Role, ACCOUNT, "deployer") == sorted([made.arn, ADMIN])
    assert await store.policy(ACCOUNT, made.arn) == replace(made, attachments=2)
    counts = {found.name: found.attachments for found in await store.policies(ACCOUNT)}
    assert counts["buckets"] == 2
    assert counts["AdministratorAccess"] == 1
    assert counts["AmazonSageMakerReadOnly"] == 0
    with pytest.raises(DeleteConflict, match="Cannot delete a policy attached to entities"):
        await store.delete_policy(ACCOUNT, made.arn)
    await store.detach(User, ACCOUNT, "ann", made.arn)
    await store.detach(Role, ACCOUNT, "deployer", made.arn)
    with pytest.raises(NoSuchEntity):
        await store.detach(User, ACCOUNT, "ann", made.arn)
    await store.delete_policy(ACCOUNT, made.arn)
    with pytest.raises(NoSuchEntity, match="was not found"):
        await store.policy(ACCOUNT, made.arn)


async def test_an_identitys_policies_have_the_names_that_the_snapshot_gives_them(
    store: IdentityStore,
) -> None:
    ann, bob, made = user(path="/team/"), user("bob"), policy()
    await store.create(ann)
    await store.create(bob)
    await store.create_policy(made)
    assert await store.documents(ann) == {}
    for arn in (made.arn, ADMIN):
        await store.attach(User, ACCOUNT, ann.name, arn)
    for name in ("b", "a"):
        await store.put_inline_policy(User, ACCOUNT, ann.name, name, ALLOW)
    await store.put_inline_policy(User, ACCOUNT, bob.name, "other", ALLOW)
    found = await store.documents(ann)
    assert list(found) == [made.arn, ADMIN, f"{ann.arn}/policy/a", f"{ann.arn}/policy/b"]
    snapshot = await store.snapshot()
    assert set(found) == set(snapshot["identities"][ann.arn]["policies"])
    assert {name: json.loads(document) for name, document in found.items()} == {
        name: snapshot["policies"][name] for name in found
    }


async def test_policies_have_names_and_an_account_of_their_own(store: IdentityStore) -> None:
    made = policy()
    await store.create_policy(made)
    with pytest.raises(EntityAlreadyExists, match="A policy called BUCKETS already exists"):
        await store.create_policy(policy("BUCKETS", path="/x/"))
    await store.create(user(account_id=OTHER))
    with pytest.raises(NoSuchEntity):
        await store.policy(OTHER, made.arn)
    with pytest.raises(NoSuchEntity):
        await store.attach(User, OTHER, "ann", made.arn)
    with pytest.raises(NoSuchEntity):
        await store.delete_policy(OTHER, made.arn)


async def test_ten_policies_are_attached_at_most(store: IdentityStore) -> None:
    await store.create(user())
    for number in range(11):
        await store.create_policy(policy(f"p{number}"))
    arn = f"arn:aws:iam::{ACCOUNT}:policy/p"
    for number in range(10):
        await store.attach(User, ACCOUNT, "ann", f"{arn}{number}")
    with pytest.raises(LimitExceeded, match="PoliciesPerUser: 10"):
        await store.attach(User, ACCOUNT, "ann", f"{arn}10")
    await store.attach(User, ACCOUNT, "ann", f"{arn}3")


# --- Accounts, snapshots, changes ----------------------------------------------------------------------


async def test_accounts_are_made_with_a_key_of_their_root(store: IdentityStore) -> None:
    account, (key, secret) = await store.create_account("research")
    assert len(account.account_id) == 12
    assert account.account_id.isdigit()
    assert await store.accounts() == [*(await store.accounts())[:2], account]
    assert key.user_name is None
    assert (await store.snapshot())["access_keys"][key.access_key_id] == {
        "secret": secret,
        "account_id": account.account_id,
        "principal_arn": f"arn:aws:iam::{account.account_id}:root",
        "user_id": account.account_id,
    }
    assert await store.access_keys(account.account_id, None) == [key]


async def test_an_account_is_ensured_once(store: IdentityStore) -> None:
    made = await asyncio.gather(*(store.ensure_account("777788889999", "x") for _ in range(4)))
    assert len(set(made)) == 1
    with pytest.raises(NoSuchEntity, match="The account 000000000001 cannot be found"):
        await store.create(user(account_id="000000000001"))


async def test_a_snapshot_has_all_that_a_gateway_needs(store: IdentityStore) -> None:
    ann, deployer, made = user(tags={"team": "red"}), role(path="/ops/"), policy()
    await store.create(ann)
    await store.create(deployer)
    await store.create_policy(made)
    key, secret = await store.create_access_key(ACCOUNT, "ann")
    await store.attach(User, ACCOUNT, "ann", made.arn)
    await store.attach(User, ACCOUNT, "ann", ADMIN)
    await store.put_inline_policy(Role, ACCOUNT, "deployer", "own", ALLOW)
    snapshot = await store.snapshot()
    assert json.loads(json.dumps(snapshot)) == snapshot
    assert snapshot["access_keys"] == {
        key.access_key_id: {
            "secret": secret,
            "account_id": ACCOUNT,
            "principal_arn": ann.arn,
            "user_id": ann.identity_id,
        }
    }
    root = f"arn:aws:iam::{ACCOUNT}:root"
    assert snapshot["identities"][root] == {
        "account_id": ACCOUNT,
        "id": ACCOUNT,
        "kind": "root",
        "tags": {},
        "policies": [],
    }
    found = snapshot["identities"][ann.arn]
    assert (found["id"], found["kind"], found["tags"]) == (ann.identity_id, "user", {"team": "red"})
    assert sorted(found["policies"]) == sorted([made.arn, ADMIN])
    inline = f"{deployer.arn}/policy/own"
    assert snapshot["identities"][deployer.arn]["policies"] == [inline]
    assert snapshot["policies"][inline] == snapshot["policies"][made.arn] == json.loads(ALLOW)
    assert snapshot["policies"][ADMIN]["Statement"][0]["Action"] == "*"


async def test_word_is_given_of_every_change_once_it_is_committed(fixture: Fixture) -> None:
    store = fixture.store
    await store.create(user())
    assert fixture.changes == 1
    await store.create_access_key(ACCOUNT, "ann")
    await store.attach(User, ACCOUNT, "ann", ADMIN)
    await store.update(User, ACCOUNT, "ann", lambda found: replace(found, path="/p/"))
    assert fixture.changes == 4
    with pytest.raises(DeleteConflict):
        await store.delete(User, ACCOUNT, "ann")
    await store.get(User, ACCOUNT, "ann")
    await store.snapshot()
    assert fixture.changes == 4
