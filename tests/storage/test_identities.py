"""Accounts, users, roles, keys and policies, on each database."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import reduce
from operator import or_
from typing import Any

import pytest
from sqlalchemy import select

from moorage.auth.access import Access
from moorage.auth.credentials import AccessKey
from moorage.auth.identities import ManagedPolicy, Role, User, new_policy_id, new_role_id, new_user_id
from moorage.auth.sealing import Sealer, UnsealError
from moorage.errors import (
    AccessDeniedException,
    DeleteConflict,
    EntityAlreadyExists,
    LimitExceeded,
    NoSuchEntity,
    ServiceError,
)
from moorage.storage import schema
from moorage.storage.database import Database, open_database
from moorage.storage.identities import IdentityStore
from moorage.storage.identity_snapshot import Changed, merged

ACCOUNT = "111122223333"
OTHER = "444455556666"
ROOT = AccessKey(
    access_key_id="AKIAROOT",
    secret_access_key="s",
    account_id=ACCOUNT,
    principal_arn=f"arn:aws:iam::{ACCOUNT}:root",
    user_id=ACCOUNT,
)
SEALER = Sealer(b"k" * 32)
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
    changed: list[Changed] = field(default_factory=list)


def keys_of(snapshot: dict[str, Any]) -> dict[str, str]:
    return {
        key_id: secret
        for each in snapshot["identities"].values()
        for key_id, secret in each["access_keys"].items()
    }


@pytest.fixture
async def fixture(database_url: str) -> AsyncIterator[Fixture]:
    database = await open_database(database_url)
    changed: list[Changed] = []
    found = Fixture(IdentityStore(database, SEALER, on_change=changed.append), database, changed)
    await found.store.ensure_account(ACCOUNT, "main")
    await found.store.ensure_account(OTHER, "other")
    changed.clear()
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
    assert keys_of(snapshot)[key.access_key_id] == secret
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
    assert keys_of(await store.snapshot()) == {}
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
    told = snapshot["identities"][ann.identity_id]
    assert list(found) == [*told["attached"], *sorted(told["inline"])]
    assert {name: json.loads(document) for name, document in found.items()} == {
        **{arn: snapshot["policies"][arn] for arn in told["attached"]},
        **told["inline"],
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
    told = (await store.snapshot())["identities"][account.account_id]
    assert told["arn"] == f"arn:aws:iam::{account.account_id}:root"
    assert told["access_keys"] == {key.access_key_id: secret}
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
    assert snapshot["identities"][ACCOUNT] == {
        "arn": f"arn:aws:iam::{ACCOUNT}:root",
        "account_id": ACCOUNT,
        "id": ACCOUNT,
        "kind": "root",
        "tags": {},
        "access_keys": {},
        "attached": [],
        "inline": {},
    }
    assert snapshot["identities"][ann.identity_id] == {
        "arn": ann.arn,
        "account_id": ACCOUNT,
        "id": ann.identity_id,
        "kind": "user",
        "tags": {"team": "red"},
        "access_keys": {key.access_key_id: secret},
        "attached": sorted([made.arn, ADMIN]),
        "inline": {},
    }
    own = {f"{deployer.arn}/policy/own": json.loads(ALLOW)}
    assert snapshot["identities"][deployer.identity_id]["inline"] == own
    assert snapshot["policies"][made.arn] == json.loads(ALLOW)
    assert snapshot["policies"][ADMIN]["Statement"][0]["Action"] == "*"


async def test_word_is_given_of_every_change_once_it_is_committed(fixture: Fixture) -> None:
    store, changed = fixture.store, fixture.changed
    ann, made = user(), policy()
    await store.create(ann)
    await store.create_access_key(ACCOUNT, "ann")
    await store.attach(User, ACCOUNT, "ann", ADMIN)
    await store.update(User, ACCOUNT, "ann", lambda found: replace(found, path="/p/"))
    assert changed == [Changed(identities=frozenset((ann.identity_id,)))] * 4
    changed.clear()
    with pytest.raises(DeleteConflict):
        await store.delete(User, ACCOUNT, "ann")
    await store.get(User, ACCOUNT, "ann")
    await store.snapshot()
    assert changed == []
    await store.create_policy(made)
    await store.create_access_key(ACCOUNT, None)
    assert changed == [Changed(policies=frozenset((made.arn,))), Changed(identities=frozenset((ACCOUNT,)))]


async def test_a_change_of_which_it_is_not_known_whether_it_was_committed_is_told(fixture: Fixture) -> None:
    users = [user(f"u{turns}") for turns in range(0, 60, 3)]
    for turns, each in enumerate(users):
        creating = asyncio.ensure_future(fixture.store.create(each))
        for _ in range(3 * turns):
            await asyncio.sleep(0.0005)
        creating.cancel()
        await asyncio.gather(creating, return_exceptions=True)
    told = reduce(or_, fixture.changed, Changed()).identities
    there = (await fixture.store.snapshot())["identities"].keys()
    assert {each.identity_id for each in users} & there <= told


NAMES = ["ann", "bob", "Cleo"]
OPERATIONS = [
    "create", "rename", "delete", "create_key", "status", "delete_key", "inline", "delete_inline", "create_policy",
    "delete_policy", "attach", "detach", "account",
]  # fmt: skip


async def operate(store: IdentityStore, chance: random.Random) -> None:
    """Something, which may well be refused."""
    kind: Any = chance.choice([User, Role])
    name, other = chance.choices(NAMES, k=2)
    account_id = chance.choice([ACCOUNT, OTHER])
    arn = chance.choice([ADMIN, *(f"arn:aws:iam::{account_id}:policy/{each}" for each in "pq")])
    owner = chance.choice([name, None])
    match chance.choice(OPERATIONS):
        case "create":
            made = user(name) if kind is User else role(name)
            await store.create(replace(made, account_id=account_id))
        case "rename":
            path = chance.choice(["/", "/x/"])
            await store.update(kind, account_id, name, lambda found: replace(found, name=other, path=path))
        case "delete":
            await store.delete(kind, account_id, name)
        case "create_key":
            await store.create_access_key(account_id, owner)
        case "status" | "delete_key" as what:
            key_id = chance.choice(await store.access_keys(account_id, owner)).access_key_id
            if what == "delete_key":
                await store.delete_access_key(account_id, owner, key_id)
            else:
                status: Any = chance.choice(["Active", "Inactive"])
                await store.set_access_key_status(account_id, owner, key_id, status)
        case "inline":
            await store.put_inline_policy(kind, account_id, name, chance.choice("ab"), ALLOW)
        case "delete_inline":
            await store.delete_inline_policy(kind, account_id, name, chance.choice("ab"))
        case "create_policy":
            await store.create_policy(replace(policy(chance.choice("pq")), account_id=account_id))
        case "delete_policy":
            await store.delete_policy(account_id, arn)
        case "attach":
            await store.attach(kind, account_id, name, arn)
        case "detach":
            await store.detach(kind, account_id, name, arn)
        case "account":
            await store.create_account("more")


@pytest.mark.parametrize("seed", range(2))
async def test_a_snapshot_and_all_differences_since_are_a_snapshot(fixture: Fixture, seed: int) -> None:
    """As the gateways know it, too: a key is known, and allowed what it is, exactly if it is so for one that has just
    been told everything."""
    store, chance = fixture.store, random.Random(seed)
    told = await store.snapshot()
    access = Access(ROOT)
    access.apply(told)
    for step in range(150):
        with contextlib.suppress(ServiceError, IndexError):
            await operate(store, chance)
        if chance.random() < 0.3:  # several changes may share a difference
            changed = reduce(or_, fixture.changed, Changed())
            fixture.changed.clear()
            difference = json.loads(json.dumps(await store.difference(changed)))
            told = merged(told, difference)
            access.apply(difference)
            if step % 3 == 0:
                whole = await store.snapshot()
                assert told == whole
                assert_alike(access, whole)


def assert_alike(access: Access, snapshot: dict[str, Any]) -> None:
    fresh = Access(ROOT)
    fresh.apply(snapshot)
    assert access.credentials == fresh.credentials
    for key in fresh.credentials.values():
        assert may(access, key) is may(fresh, key)


def may(access: Access, key: AccessKey) -> bool:
    try:
        access.authorize(key, "s3:GetObject", "arn:aws:s3:::b/k", dict)
    except AccessDeniedException:
        return False
    return True
