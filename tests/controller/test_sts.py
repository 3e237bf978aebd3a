"""STS, called and read by botocore."""

import dataclasses
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from moorage.auth.identities import Role
from moorage.auth.sessions import Session, open_token
from moorage.controller.permissions import Requester
from moorage.controller.sts import Sts
from moorage.storage.identities import IdentityStore

from .identities import ACCOUNT, ADMIN, NOW, OTHER, ROOT, SEALER, identity_store, role, user
from .query_client import QueryClient, code


def trust(principal: str, *actions: str, **condition: Any) -> str:
    statement: dict[str, Any] = {
        "Effect": "Allow",
        "Principal": {"AWS": principal},
        "Action": list(actions) or "sts:AssumeRole",
    }
    if condition:
        statement["Condition"] = condition
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def allow(action: str) -> str:
    statement = {"Effect": "Allow", "Action": action, "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


ASSUME = allow("sts:AssumeRole")
ROLE_ARN = f"arn:aws:iam::{ACCOUNT}:role/ops/deployer"
ANN = f"arn:aws:iam::{ACCOUNT}:user/ann"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[IdentityStore]:
    async with identity_store(tmp_path) as made:
        yield made


@pytest.fixture
def sts(store: IdentityStore) -> QueryClient:
    return QueryClient("sts", Sts(store, SEALER, clock=lambda: NOW), ROOT)


def as_(sts: QueryClient, requester: Requester) -> QueryClient:
    return dataclasses.replace(sts, requester=requester)


def session_of(reply: Any) -> Session:
    session = open_token(SEALER, reply["Credentials"]["SessionToken"], NOW)
    assert session.access_key_id == reply["Credentials"]["AccessKeyId"]
    assert session.secret_access_key == reply["Credentials"]["SecretAccessKey"]
    assert session.expiration == reply["Credentials"]["Expiration"]
    return session


def requester_of(session: Session) -> Requester:
    return Requester(
        account_id=session.account_id,
        principal_arn=session.principal_arn,
        user_id=session.user_id,
        identity_arn=session.identity_arn,
        is_session=True,
        session_policy=session.session_policy,
        session_policy_arns=session.session_policy_arns,
        session_tags=session.tags,
    )


async def test_who_am_i(sts: QueryClient, store: IdentityStore) -> None:
    ann = await user(store, "ann")
    assert await as_(sts, ann).call("GetCallerIdentity") == {
        "Account": ACCOUNT,
        "Arn": ANN,
        "UserId": ann.user_id,
    }


async def test_whose_key_is_it(sts: QueryClient, store: IdentityStore) -> None:
    key = (await store.create_access_key(OTHER, None)).record
    assert await sts.call("GetAccessKeyInfo", AccessKeyId=key.access_key_id) == {"Account": OTHER}
    with pytest.raises(ClientError, match="not one that this server knows"):
        await sts.call("GetAccessKeyInfo", AccessKeyId="AKIA" + "A" * 16)


# --- AssumeRole ----------------------------------------------------------------------------------------


async def test_a_role_is_assumed(sts: QueryClient, store: IdentityStore) -> None:
    made = await role(store, "deployer", trust(ANN), path="/ops/")
    ann = await user(store, "ann")
    reply = await as_(sts, ann).call("AssumeRole", RoleArn=ROLE_ARN, RoleSessionName="release-7")
    assert reply["AssumedRoleUser"] == {
        "AssumedRoleId": f"{made.identity_id}:release-7",
        "Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/deployer/release-7",
    }
    assert "PackedPolicySize" not in reply
    session = session_of(reply)
    assert session.identity_arn == ROLE_ARN
    assert session.identity_id == made.identity_id
    assert session.expiration == NOW + timedelta(hours=1)
    who = await as_(sts, requester_of(session)).call("GetCallerIdentity")
    assert who["Arn"] == reply["AssumedRoleUser"]["Arn"]


async def test_an_account_that_is_trusted_delegates_to_its_policies(
    sts: QueryClient, store: IdentityStore
) -> None:
    await role(store, "deployer", trust(ACCOUNT), path="/ops/")
    ann, bob = await user(store, "ann", document=ASSUME), await user(store, "bob")
    await as_(sts, ann).call("AssumeRole", RoleArn=ROLE_ARN, RoleSessionName="ss")
    with pytest.raises(ClientError) as caught:
        await as_(sts, bob).call("AssumeRole", RoleArn=ROLE_ARN, RoleSessionName="ss")
    assert code(caught.value) == ("AccessDenied", 403)


async def test_another_account_needs_both_sides(sts: QueryClient, store: IdentityStore) -> None:
    await role(store, "deployer", trust(OTHER), path="/ops/")
    carl = await user(store, "carl", account_id=OTHER, document=ASSUME)
    dora = await user(store, "dora", account_id=OTHER)
    reply = await as_(sts, carl).call("AssumeRole", RoleArn=ROLE_ARN, RoleSessionName="ss")
    assert session_of(reply).account_id == ACCOUNT
    ann = await user(store, "ann", document=ASSUME)
    for requester in (dora, ann):
        with pytest.raises(ClientError) as caught:
            await as_(sts, requester).call("AssumeRole", RoleArn=ROLE_ARN, RoleSessionName="ss")
        assert code(caught.value) == ("AccessDenied", 403)


async def test_an_external_id_is_asked_for(sts: QueryClient, store: IdentityStore) -> None:
    condition = {"StringEquals": {"sts:ExternalId": "s3cret"}}
    await role(store, "deployer", trust(ANN, **condition), path="/ops/")
    ann = as_(sts, await user(store, "ann"))
    members = {"RoleArn": ROLE_ARN, "RoleSessionName": "ss"}
    for wrong in ({}, {"ExternalId": "other"}):
        with pytest.raises(ClientError, match="not authorized to perform: sts:AssumeRole"):
            await ann.call("AssumeRole", **members, **wrong)
    await ann.call("AssumeRole", **members, ExternalId="s3cret")


async def test_session_policies_and_tags_go_with_the_session(sts: QueryClient, store: IdentityStore) -> None:
    await role(store, "deployer", trust(ANN, "sts:AssumeRole", "sts:TagSession"), path="/ops/")
    await role(store, "untagged", trust(ANN))
    ann = as_(sts, await user(store, "ann"))
    members = {"RoleSessionName": "ss", "Tags": [{"Key": "team", "Value": "red"}]}
    reply = await ann.call(
        "AssumeRole", RoleArn=ROLE_ARN, Policy=ASSUME, PolicyArns=[{"arn": ADMIN}], **members
    )
    session = session_of(reply)
    assert session.session_policy == ASSUME
    assert session.session_policy_arns == (ADMIN,)
    assert session.tags == {"team": "red"}
    assert 0 < reply["PackedPolicySize"] < 100
    with pytest.raises(ClientError, match="not authorized to perform: sts:TagSession"):
        await ann.call("AssumeRole", RoleArn=f"arn:aws:iam::{ACCOUNT}:role/untagged", **members)


async def test_a_session_lasts_as_long_as_its_role_allows(sts: QueryClient, store: IdentityStore) -> None:
    await role(store, "deployer", trust(ACCOUNT), path="/ops/", max_session_seconds=7200)
    await store.put_inline_policy(Role, ACCOUNT, "deployer", "p", ASSUME)
    ann = as_(sts, await user(store, "ann", document=ASSUME))
    members = {"RoleArn": ROLE_ARN, "RoleSessionName": "ss"}
    session = session_of(await ann.call("AssumeRole", **members, DurationSeconds=7200))
    assert session.expiration == NOW + timedelta(hours=2)
    with pytest.raises(ClientError, match="exceeds the MaxSessionDuration set for this role"):
        await ann.call("AssumeRole", **members, DurationSeconds=7201)
    chained = as_(sts, requester_of(session))
    assert session_of(await chained.call("AssumeRole", **members)).expiration == NOW + timedelta(hours=1)
    with pytest.raises(ClientError, match="1 hour session limit for roles assumed by role chaining"):
        await chained.call("AssumeRole", **members, DurationSeconds=3601)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"RoleSessionName": "x"}, "ValidationError"),
        ({"RoleSessionName": "a b"}, "ValidationError"),
        ({"DurationSeconds": 899}, "ValidationError"),
        ({"DurationSeconds": 43201}, "ValidationError"),
        ({"RoleArn": "arn:aws:s3:::not-a-role-at-all"}, "ValidationError"),
        ({"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/absent"}, "AccessDenied"),
        ({"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/deployer"}, "AccessDenied"),
        ({"Policy": "{"}, "MalformedPolicyDocument"),
        (
            {"Policy": ASSUME.replace('"Resource": "*"', '"Resource": "arn:aws:s3:::${aws:usernam}"')},
            "MalformedPolicyDocument",
        ),
        ({"Policy": " " * 2049}, "PackedPolicyTooLarge"),
        ({"PolicyArns": [{"arn": f"{ADMIN}s"}]}, "ValidationError"),
        ({"PolicyArns": [{"arn": ADMIN}] * 11}, "ValidationError"),
        ({"Tags": [{"Key": "a", "Value": ""}, {"Key": "A", "Value": ""}]}, "ValidationError"),
        (
            {"Tags": [{"Key": f"{'k' * 120}{n}", "Value": "v" * 250} for n in range(30)]},
            "PackedPolicyTooLarge",
        ),
        ({"SerialNumber": "arn:aws:iam::1:mfa/a", "TokenCode": "123456"}, "ValidationError"),
        ({"SourceIdentity": "ann"}, "ValidationError"),
    ],
)
async def test_wrong_requests(
    sts: QueryClient, store: IdentityStore, members: dict[str, Any], expected: str
) -> None:
    await role(
        store,
        "deployer",
        trust(ANN, "sts:AssumeRole", "sts:TagSession"),
        path="/ops/",
        max_session_seconds=43200,
    )
    ann = as_(sts, await user(store, "ann"))
    with pytest.raises(ClientError) as caught:
        await ann.call("AssumeRole", **{"RoleArn": ROLE_ARN, "RoleSessionName": "ss", **members})
    assert code(caught.value)[0] == expected


# --- GetSessionToken -----------------------------------------------------------------------------------


async def test_a_user_gets_a_session_of_its_own(sts: QueryClient, store: IdentityStore) -> None:
    ann = await user(store, "ann")
    session = session_of(await as_(sts, ann).call("GetSessionToken"))
    assert session.expiration == NOW + timedelta(hours=12)
    assert (session.principal_arn, session.identity_arn, session.user_id) == (ANN, ANN, ann.user_id)
    session = session_of(await as_(sts, ann).call("GetSessionToken", DurationSeconds=900))
    assert session.expiration == NOW + timedelta(minutes=15)
    with pytest.raises(ClientError, match="with session credentials"):
        await as_(sts, requester_of(session)).call("GetSessionToken")


async def test_a_roots_session_lasts_an_hour_at_most(sts: QueryClient) -> None:
    session = session_of(await sts.call("GetSessionToken", DurationSeconds=7200))
    assert session.expiration == NOW + timedelta(hours=1)
    assert session.identity_arn == ROOT.principal_arn


async def test_operations_that_are_not_here(sts: QueryClient) -> None:
    with pytest.raises(ClientError, match="does not have the operation GetFederationToken of STS") as caught:
        await sts.call("GetFederationToken", Name="ann")
    assert code(caught.value) == ("InvalidAction", 400)
