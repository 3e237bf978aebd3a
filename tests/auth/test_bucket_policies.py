"""Policies of buckets, decided together with those of the caller, within and across accounts."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from moorage.auth.access import Access
from moorage.auth.authorizer import Authorizer, BucketPolicy, Grants
from moorage.auth.credentials import AccessKey
from moorage.auth.policy import Caller, CallerKind, Policy, PolicyKind, compile_policy
from moorage.errors import AccessDeniedException

OWN, OTHER, THIRD = "111122223333", "444455556666", "777788889999"
BUCKET = "arn:aws:s3:::data"
KEY = f"{BUCKET}/a/b"
ON = {"s3:GetObject": KEY, "s3:ListBucket": BUCKET}
USER = Caller(
    arn=f"arn:aws:iam::{OWN}:user/alice",
    account_id=OWN,
    kind=CallerKind.USER,
    user_id="AIDAALICE",
    user_name="alice",
)
SESSION = Caller(
    arn=f"arn:aws:sts::{OWN}:assumed-role/app/s",
    account_id=OWN,
    kind=CallerKind.ASSUMED_ROLE,
    user_id="AROAAPP:s",
    role_name="app",
    session_name="s",
)
ROOT = Caller(arn=f"arn:aws:iam::{OWN}:root", account_id=OWN, kind=CallerKind.ROOT, user_id=OWN)
CALLERS = {"user": USER, "session": SESSION}


def document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def statement(effect: str, action: str, resource: str | list[str], **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


def to(principal: object, effect: str = "Allow", action: str = "s3:*", **more: Any) -> dict[str, Any]:
    to_whom = principal if isinstance(principal, str) else {"AWS": principal}
    return statement(effect, action, [BUCKET, f"{BUCKET}/*"], Principal=to_whom, **more)


def of_bucket(*statements: dict[str, Any]) -> Policy:
    return compile_policy(document(*statements), name="data", kind=PolicyKind.RESOURCE)


def of_identity(*statements: dict[str, Any]) -> Policy:
    return compile_policy(document(*statements), name="p", kind=PolicyKind.IDENTITY)


IDENTITY = {
    "allows": (of_identity(statement("Allow", "s3:*", [BUCKET, f"{BUCKET}/*"])),),
    "says nothing": (),
    "denies": (
        of_identity(statement("Allow", "*", "*"), statement("Deny", "s3:*", [BUCKET, f"{BUCKET}/*"])),
    ),
}
NOBODY, ACCOUNT, ENTITY, DIRECT = range(4)
"""What a bucket's policy grants a caller: as in `moorage.auth.policy_principals.Level`."""

POLICIES: Mapping[str, tuple[tuple[dict[str, Any], ...] | None, Mapping[str, int]]] = {
    "no policy": (None, {"user": NOBODY, "session": NOBODY}),
    "a third account": ((to([THIRD]),), {"user": NOBODY, "session": NOBODY}),
    "the account's number": ((to([OWN]),), {"user": ACCOUNT, "session": ACCOUNT}),
    "the account's root": ((to([ROOT.arn]),), {"user": ACCOUNT, "session": ACCOUNT}),
    "the user": ((to([USER.arn]),), {"user": DIRECT, "session": NOBODY}),
    "the role": ((to([f"arn:aws:iam::{OWN}:role/app"]),), {"user": NOBODY, "session": ENTITY}),
    "the session": ((to([SESSION.arn]),), {"user": NOBODY, "session": DIRECT}),
    "everyone": ((to("*"),), {"user": DIRECT, "session": DIRECT}),
    "everyone of AWS": ((to(["*"]),), {"user": DIRECT, "session": DIRECT}),
}


def decides(
    caller: Caller,
    identity: tuple[Policy, ...],
    policy: Policy | None,
    owner: str,
    session: tuple[Policy, ...] | None = None,
) -> Authorizer:
    made = Authorizer({"k": Grants(caller=caller, identity=identity, session=session)})
    if policy is not None:
        made.replace_bucket_policies({"data": BucketPolicy(owner, policy)})
    return made


@pytest.mark.parametrize("action", ON)
@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize("says", POLICIES)
@pytest.mark.parametrize("identity", IDENTITY)
@pytest.mark.parametrize("owner", [OWN, OTHER])
def test_identity_and_bucket_decide_together(
    owner: str, identity: str, says: str, who: str, action: str
) -> None:
    statements, granted = POLICIES[says]
    policy = None if statements is None else of_bucket(*statements)
    made = decides(CALLERS[who], IDENTITY[identity], policy, owner)
    if identity == "denies":
        expected = False
    elif (
        owner == OWN or statements is None
    ):  # the bucket is taken for the caller's own where nothing tells its owner
        expected = identity == "allows" or granted[who] >= ENTITY
    else:
        expected = identity == "allows" and granted[who] >= ACCOUNT
    decision = made.decide("k", action, ON[action], dict)
    assert decision.allowed is expected
    assert made.decide("k", action, ON[action], dict) is decision, "it depends on nothing else, and is kept"


@pytest.mark.parametrize("action", ON)
@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize("owner", [OWN, OTHER])
def test_the_bucket_denies_whatever_else_allows(owner: str, who: str, action: str) -> None:
    policy = of_bucket(to("*"), to([THIRD, OWN], "Deny"))
    decision = decides(CALLERS[who], IDENTITY["allows"], policy, owner).decide("k", action, ON[action], dict)
    assert not decision.allowed
    assert decision.explicit is (owner == OWN), "nobody else is told what the policy says"


@pytest.mark.parametrize("owner", [OWN, OTHER])
def test_the_accounts_root_needs_the_bucket_of_another_to_allow(owner: str) -> None:
    for policy, elsewhere in ((of_bucket(to([THIRD])), False), (of_bucket(to([OWN])), True)):
        made = decides(ROOT, (), policy, owner)
        assert made.decide("k", "s3:GetObject", KEY, dict).allowed is (owner == OWN or elsewhere)
    assert (
        not decides(ROOT, (), of_bucket(to("*", "Deny")), owner)
        .decide("k", "s3:GetObject", KEY, dict)
        .allowed
    )


@pytest.mark.parametrize(
    ("says", "own", "elsewhere"),
    [("the session", True, False), ("everyone", True, False), ("the role", False, False)],
)
def test_session_policies_limit_what_a_bucket_grants_to_the_role(
    says: str, own: bool, elsewhere: bool
) -> None:
    statements, _ = POLICIES[says]
    assert statements is not None
    limits = (of_identity(statement("Allow", "sagemaker:*", "*")),)
    for owner, expected in ((OWN, own), (OTHER, elsewhere)):
        made = decides(SESSION, IDENTITY["allows"], of_bucket(*statements), owner, limits)
        assert made.decide("k", "s3:GetObject", KEY, dict).allowed is expected


def test_a_policy_is_about_its_own_bucket_only() -> None:
    made = decides(USER, (), of_bucket(statement("Allow", "s3:*", "*", Principal="*")), OWN)
    assert made.decide("k", "s3:GetObject", KEY, dict).allowed
    for resource in ("arn:aws:s3:::data2/a", "arn:aws:s3:::dat", "arn:aws:s3:::", "*"):
        assert not made.decide("k", "s3:GetObject", resource, dict).allowed


def test_statements_choose_keys() -> None:
    policy = of_bucket(
        statement("Allow", "s3:GetObject", f"{BUCKET}/team/*", Principal="*"),
        statement("Deny", "s3:GetObject", f"{BUCKET}/team/secret", Principal="*"),
    )
    made = decides(USER, (), policy, OWN)
    assert made.decide("k", "s3:GetObject", f"{BUCKET}/team/a", dict).allowed
    assert not made.decide("k", "s3:GetObject", f"{BUCKET}/team/secret", dict).allowed
    assert not made.decide("k", "s3:GetObject", f"{BUCKET}/other", dict).allowed


def test_a_condition_of_the_bucket_is_asked_at_each_request_of_its_objects() -> None:
    condition = {"Condition": {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}}
    made = decides(USER, (), of_bucket(to("*", action="s3:GetObject", **condition)), OWN)
    for _ in range(2):
        assert made.decide("k", "s3:GetObject", KEY, lambda: {"aws:SourceIp": "192.0.2.1"}).allowed
        assert not made.decide("k", "s3:GetObject", KEY, lambda: {"aws:SourceIp": "198.51.100.1"}).allowed
    listed = made.decide("k", "s3:ListBucket", BUCKET, dict)
    assert made.decide("k", "s3:ListBucket", BUCKET, dict) is listed, "no statement about it has a condition"


def test_the_owners_root_cannot_be_locked_out_of_the_policy() -> None:
    made = decides(ROOT, (), of_bucket(to("*", "Deny")), OWN)
    for action in ("s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"):
        assert made.decide("k", action, BUCKET, dict).allowed
        user = decides(USER, IDENTITY["allows"], of_bucket(to("*", "Deny")), OWN)
        assert not user.decide("k", action, BUCKET, dict).allowed, "users can"
        foreign = decides(ROOT, (), of_bucket(to("*", "Deny")), OTHER)
        assert not foreign.decide("k", action, BUCKET, dict).allowed
    assert not made.decide("k", "s3:DeleteBucket", BUCKET, dict).allowed


def test_a_policy_has_no_say_in_making_another_bucket_of_the_name() -> None:
    for identity, expected in (("allows", True), ("says nothing", False)):
        made = decides(USER, IDENTITY[identity], of_bucket(to("*")), OTHER)
        assert made.decide("k", "s3:CreateBucket", BUCKET, dict).allowed is expected
        made = decides(USER, IDENTITY[identity], of_bucket(to("*", "Deny")), OTHER)
        assert made.decide("k", "s3:CreateBucket", BUCKET, dict).allowed is expected


def test_policies_of_buckets_outlive_changes_of_callers_and_of_other_resources() -> None:
    made = decides(USER, (), of_bucket(to("*")), OWN)
    made.replace_resource_policies({})
    assert made.decide("k", "s3:GetObject", KEY, dict).allowed
    made.replace({"other": Grants(caller=USER)})
    assert made.decide("other", "s3:GetObject", KEY, dict).allowed
    made.adopt(Authorizer({"third": Grants(caller=USER)}))
    assert made.decide("third", "s3:GetObject", KEY, dict).allowed
    made.replace_bucket_policies({})
    assert not made.decide("third", "s3:GetObject", KEY, dict).allowed


def test_a_user_made_anew_under_the_same_name_is_named_again() -> None:
    anew = replace(USER, user_id="AIDAANOTHER")
    made = decides(anew, (), of_bucket(to([USER.arn])), OWN)
    assert made.decide("k", "s3:GetObject", KEY, dict).allowed


# --- As the feed tells them ----------------------------------------------------------------------------

KEY_OF_ROOT = AccessKey(
    access_key_id="AKIAROOT",
    secret_access_key="s",
    account_id=OWN,
    principal_arn=ROOT.arn,
    user_id=OWN,
)


def told(owner: str, *statements: dict[str, Any]) -> dict[str, str]:
    return {"account_id": owner, "document": json.dumps(document(*statements))}


def test_a_gateway_knows_who_owns_a_bucket_that_has_a_policy() -> None:
    access = Access(KEY_OF_ROOT)
    assert access.bucket_owner("data") is None
    access.replace_bucket_policies({"data": told(OTHER, to([OWN]))})
    assert access.bucket_owner("data") == OTHER
    access.authorize(KEY_OF_ROOT, "s3:GetObject", KEY, dict)
    assert access.is_allowed(KEY_OF_ROOT, "s3:GetObject", KEY)
    access.replace_bucket_policies({"data": told(OTHER, to([THIRD]))})
    assert not access.is_allowed(KEY_OF_ROOT, "s3:GetObject", KEY)
    with pytest.raises(AccessDeniedException, match="no resource-based policy allows the s3:GetObject"):
        access.authorize(KEY_OF_ROOT, "s3:GetObject", KEY, dict)
    access.replace_bucket_policies({"data": told(OWN, to([THIRD]))})
    assert access.bucket_owner("data") == OWN, "though the document is as it was"
    access.authorize(KEY_OF_ROOT, "s3:GetObject", KEY, dict)
    access.replace_bucket_policies({})
    assert access.bucket_owner("data") is None


def test_a_bucket_policy_that_cannot_be_read_denies_everything_but_its_replacement() -> None:
    access = Access(KEY_OF_ROOT)
    access.replace_bucket_policies({"data": {"account_id": OWN, "document": "{}"}})
    with pytest.raises(AccessDeniedException):
        access.authorize(KEY_OF_ROOT, "s3:GetObject", KEY, dict)
    access.authorize(KEY_OF_ROOT, "s3:GetObject", "arn:aws:s3:::data2/a", dict)
    access.authorize(KEY_OF_ROOT, "s3:PutBucketPolicy", BUCKET, dict)
