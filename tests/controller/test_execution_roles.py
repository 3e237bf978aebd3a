"""Execution roles as the controller finds them: which there are, what they may do, and who may pass them."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from moorage.auth import execution_roles as rules
from moorage.auth.execution_roles import CannotAssumeRole
from moorage.auth.identities import Role, User, assumed_role_arn
from moorage.controller.execution_roles import ByCredentials, ByPolicies, ExecutionRoles
from moorage.controller.permissions import Permissions, Requester
from moorage.errors import AccessDeniedException
from moorage.storage.failures import DatabaseUnavailable
from moorage.storage.identities import IdentityStore
from moorage.storage.objects import ObjectAccessDenied, ObjectError, Principal
from tests.async_inference.s3 import LocalS3
from tests.controller.identities import ACCOUNT, ADMIN, NOW, OTHER, ROOT, SEALER, identity_store, user
from tests.controller.identities import role as create_role
from tests.s3.by_tcp import KEY

MODEL = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:model/m"
UNKNOWN = "999988887777"
PASSED = {"iam:PassedToService": "sagemaker.amazonaws.com"}
NOT_ASSUMED = (
    "Could not assume role {arn}. Please ensure that the role exists and allows principal "
    "'sagemaker.amazonaws.com' to assume the role."
)


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(*actions: str, resource: str = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": resource, **more}


TRUST = document(
    {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
)
NO_TRUST = document({"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"})


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[IdentityStore]:
    async with identity_store(tmp_path) as store:
        await create_role(store, "trusting", TRUST)
        await create_role(store, "closed", NO_TRUST)
        yield store


def arn_of(name: str, account_id: str = ACCOUNT) -> str:
    return f"arn:aws:iam::{account_id}:role/{name}"


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("role_arn", "found", "refusal", "strict_refusal"),
    [
        (arn_of("trusting"), "trusting", None, None),
        (arn_of("path/trusting"), None, None, NOT_ASSUMED),
        (arn_of("closed"), None, NOT_ASSUMED, NOT_ASSUMED),
        (arn_of("absent"), None, None, NOT_ASSUMED),
        (arn_of("trusting", UNKNOWN), None, None, "Cross-account pass role is not allowed."),
        (arn_of("trusting", OTHER), None, *["Cross-account pass role is not allowed."] * 2),
        (None, None, None, None),
    ],
)
async def test_roles_that_exist_bound_and_others_stand_for_their_account(
    store: IdentityStore,
    role_arn: str | None,
    found: str | None,
    refusal: str | None,
    strict_refusal: str | None,
    strict: bool,
) -> None:
    roles = ExecutionRoles(store, SEALER, strict=strict, clock=lambda: NOW)
    expected = strict_refusal if strict else refusal
    if expected is not None:
        with pytest.raises(CannotAssumeRole) as caught:
            await roles.check(ACCOUNT, role_arn, source_arn=MODEL)
        assert str(caught.value) == expected.format(arn=role_arn)
        return
    role = await roles.check(ACCOUNT, role_arn, source_arn=MODEL)
    assert (role and role.name) == found


@pytest.mark.parametrize(
    ("statements", "role_arn", "allowed"),
    [
        ([allow("sagemaker:*")], arn_of("trusting"), False),
        ([allow("sagemaker:*")], arn_of("absent"), False),
        ([allow("iam:PassRole", resource=arn_of("trusting"))], arn_of("trusting"), True),
        ([allow("iam:PassRole", resource=arn_of("trusting"))], arn_of("absent"), False),
        ([allow("iam:PassRole", resource=f"arn:aws:iam::{UNKNOWN}:role/*")], arn_of("x", UNKNOWN), True),
        ([allow("iam:PassRole", Condition={"StringEquals": PASSED})], arn_of("absent"), True),
        (
            [allow("iam:PassRole", Condition={"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}})],
            arn_of("absent"),
            False,
        ),
        (
            [allow("*"), {"Effect": "Deny", "Action": "iam:PassRole", "Resource": arn_of("trusting")}],
            arn_of("trusting"),
            False,
        ),
        ([allow("iam:PassRole", resource="arn:aws:iam::*:role/*")], rules.root_arn(ACCOUNT), False),
        ([allow("iam:PassRole", resource=rules.root_arn(ACCOUNT))], rules.root_arn(ACCOUNT), True),
    ],
)
async def test_who_may_pass_a_role_is_decided_by_its_arn(
    store: IdentityStore, statements: list[dict[str, Any]], role_arn: str, allowed: bool
) -> None:
    caller = await user(store, "ann", document=document(*statements))
    permissions = Permissions(store)
    if allowed:
        await permissions.check(caller, "iam:PassRole", role_arn, context=PASSED)
        return
    with pytest.raises(AccessDeniedException) as caught:
        await permissions.check(caller, "iam:PassRole", role_arn, context=PASSED)
    assert caught.value.message.startswith(
        f"User: {caller.principal_arn} is not authorized to perform: iam:PassRole on resource: {role_arn} "
    )


async def test_roots_and_administrators_pass_any_role(store: IdentityStore) -> None:
    await user(store, "admin")
    await store.attach(User, ACCOUNT, "admin", ADMIN)
    made = await store.get(User, ACCOUNT, "admin")
    admin = Requester(account_id=ACCOUNT, principal_arn=made.arn, user_id=made.identity_id)
    for caller in (ROOT, admin):
        for role_arn in (arn_of("absent"), arn_of("x", UNKNOWN), rules.root_arn(ACCOUNT)):
            await Permissions(store).check(caller, "iam:PassRole", role_arn, context=PASSED)


async def test_a_session_policy_limits_what_a_session_may_pass(store: IdentityStore) -> None:
    made = await create_role(store, "deployer", NO_TRUST)
    await store.put_inline_policy(Role, ACCOUNT, "deployer", "p", document(allow("iam:PassRole")))
    session = Requester(
        account_id=ACCOUNT,
        principal_arn=assumed_role_arn(made, "s"),
        user_id=f"{made.identity_id}:s",
        identity_arn=made.arn,
        is_session=True,
        session_policy=document(allow("iam:PassRole", resource=arn_of("trusting"))),
    )
    await Permissions(store).check(session, "iam:PassRole", arn_of("trusting"), context=PASSED)
    with pytest.raises(AccessDeniedException, match="no session policy allows"):
        await Permissions(store).check(session, "iam:PassRole", arn_of("absent"), context=PASSED)


async def test_the_session_of_a_role_that_does_not_exist_is_no_root(store: IdentityStore) -> None:
    requester = Requester(
        account_id=ACCOUNT,
        principal_arn=rules.stand_in_arn(ACCOUNT, arn_of("absent")),
        user_id=f"{ACCOUNT}:SageMaker",
        identity_arn=rules.root_arn(ACCOUNT),
        is_session=True,
        session_policy=document(allow("s3:*", "sagemaker:*")),
    )
    assert not requester.is_root
    await Permissions(store).check(requester, "sagemaker:DescribeEndpoint", "arn:aws:sagemaker:::endpoint/e")
    for action in ("iam:CreateUser", "iam:PassRole", "sts:AssumeRole", "moorage:CreateAccount"):
        with pytest.raises(AccessDeniedException):
            await Permissions(store).check(requester, action, "*")


def principal(name: str) -> Principal:
    return Principal(ACCOUNT, arn_of(name), MODEL)


@pytest.mark.parametrize(
    ("name", "action", "resource", "prefix", "allowed"),
    [
        ("trusting", "s3:GetObject", "b/in/x", None, True),
        ("trusting", "s3:GetObject", "b/in", None, False),
        ("trusting", "s3:GetObject", "c/in/x", None, False),
        ("trusting", "s3:PutObject", "b/in/x", None, False),
        ("trusting", "s3:DeleteObject", "b/in/x", None, False),
        ("trusting", "s3:ListBucket", "b", "in/", True),
        ("trusting", "s3:ListBucket", "b", "", False),
        ("absent", "s3:GetObject", "c/x", None, True),
        ("absent", "s3:DeleteObject", "c/x", None, True),
    ],
)
async def test_an_s3_of_somebody_else_is_used_as_far_as_the_role_allows(
    store: IdentityStore, name: str, action: str, resource: str, prefix: str | None, allowed: bool
) -> None:
    listing = allow(
        "s3:ListBucket", resource="arn:aws:s3:::b", Condition={"StringLike": {"s3:prefix": "in/*"}}
    )
    reading = allow("s3:GetObject", resource="arn:aws:s3:::b/in/*")
    await store.put_inline_policy(Role, ACCOUNT, "trusting", "p", document(listing, reading))
    roles = ExecutionRoles(store, SEALER)
    authority = ByPolicies(roles, access_key_id="a", secret_access_key="b", is_secure=True)
    acting = await authority.acting(principal(name))
    context = {} if prefix is None else {"s3:prefix": prefix}
    if allowed:
        acting.authorize(action, f"arn:aws:s3:::{resource}", context)
    else:
        with pytest.raises(ObjectAccessDenied, match="the role passed to CreateModel has permissions to"):
            acting.authorize(action, f"arn:aws:s3:::{resource}", context)


async def test_a_role_that_does_not_trust_the_platform_reads_nothing(store: IdentityStore) -> None:
    for authority in (
        ByCredentials(ExecutionRoles(store, SEALER)),
        ByPolicies(ExecutionRoles(store, SEALER), access_key_id="a", secret_access_key="b", is_secure=False),
    ):
        with pytest.raises(ObjectAccessDenied) as caught:
            await authority.acting(principal("closed"))
        assert str(caught.value) == NOT_ASSUMED.format(arn=arn_of("closed"))


async def test_a_role_that_bounded_a_model_and_is_gone_leaves_it_nothing(store: IdentityStore) -> None:
    roles = ExecutionRoles(store, SEALER)
    await roles.check(ACCOUNT, arn_of("trusting"), source_arn=MODEL, must_exist=True)
    await store.delete(Role, ACCOUNT, "trusting")
    with pytest.raises(CannotAssumeRole, match="Please ensure that the role exists"):
        await roles.check(ACCOUNT, arn_of("trusting"), source_arn=MODEL, must_exist=True)


async def test_a_role_made_anew_has_other_credentials(store: IdentityStore) -> None:
    first = (await ByCredentials(ExecutionRoles(store, SEALER)).acting(principal("trusting"))).key
    await store.delete(Role, ACCOUNT, "trusting")
    gone = (await ByCredentials(ExecutionRoles(store, SEALER)).acting(principal("trusting"))).key
    await create_role(store, "trusting", TRUST)
    anew = (await ByCredentials(ExecutionRoles(store, SEALER)).acting(principal("trusting"))).key
    assert len({first, gone, anew}) == 3


async def test_credentials_are_renewed_before_they_expire(store: IdentityStore) -> None:
    acting = await ByCredentials(ExecutionRoles(store, SEALER, clock=lambda: NOW)).acting(
        principal("trusting")
    )
    given = await acting.credentials()
    assert given.expires is not None
    assert (given.expires - NOW).total_seconds() == 3000


async def test_a_database_that_is_away_does_not_stop_what_has_begun(
    store: IdentityStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moorage.controller.execution_roles._BELIEVED_SECONDS", 0.0)
    authority = ByCredentials(ExecutionRoles(store, SEALER))
    known = await authority.acting(principal("trusting"))

    async def away(*_: object) -> object:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(store, "get", away)
    assert await authority.acting(principal("trusting")) is known
    with pytest.raises(DatabaseUnavailable):
        await authority.acting(principal("closed"))


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    running = LocalS3(tmp_path_factory.mktemp("s3"), "data").start()
    for key in ("in/x", "in/y", "secret/x"):
        running.write(f"s3://data/{key}", key.encode())
    yield running
    running.stop()


async def test_what_is_authorised_in_an_s3_of_somebody_else_is_what_is_read(
    store: IdentityStore, s3: LocalS3, tmp_path: Path
) -> None:
    reading = allow("s3:GetObject", resource="arn:aws:s3:::data/*")
    closed = {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::data/secret/*"}
    listing = allow(
        "s3:ListBucket", resource="arn:aws:s3:::data", Condition={"StringEquals": {"s3:prefix": "in/"}}
    )
    await store.put_inline_policy(Role, ACCOUNT, "trusting", "p", document(reading, closed, listing))
    authority = ByPolicies(
        ExecutionRoles(store, SEALER),
        access_key_id=KEY["AWS_ACCESS_KEY_ID"],
        secret_access_key=KEY["AWS_SECRET_ACCESS_KEY"],
        is_secure=False,
    )
    objects = s3.objects(authority).acting_as(ACCOUNT, arn_of("trusting"), source_arn=MODEL)
    assert await objects.keys("s3://data/in/") == ["in/x", "in/y"]
    assert await objects.download("s3://data/in/x", tmp_path / "x", max_bytes=100) == 4
    for url in (
        "s3://data/secret/x",
        "s3://data//secret/x",
        "s3://data/secret/x/",
        "s3://data/in/../secret/x",
    ):
        with pytest.raises(ObjectError):
            await objects.download(url, tmp_path / "y", max_bytes=100)
        assert not (tmp_path / "y").exists()
    for url in ("s3://data/", "s3://data/secret/", "s3://data//in/"):
        with pytest.raises(ObjectError):
            await objects.keys(url)
    for refused in (
        objects.put("s3://data/in/z", b"", content_type="text/plain"),
        objects.delete("s3://data/in/x"),
        objects.exists("s3://data/secret/x"),
        objects.exists("s3://data/secret/absent"),
    ):
        with pytest.raises(ObjectAccessDenied):
            await refused
    assert s3.read("s3://data/in/x") == b"in/x"
