"""Who the platform acts as for a model, and what a role that does not exist may do."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from moorage.auth import execution_roles as rules
from moorage.auth import sessions
from moorage.auth.access import Access
from moorage.auth.credentials import AccessKey
from moorage.auth.identities import Role
from moorage.auth.sealing import Sealer
from moorage.errors import AccessDeniedException

ACCOUNT, OTHER = "111122223333", "444455556666"
SEALER = Sealer(b"k" * 32)
NOW = datetime(2026, 3, 1, 6, 30, tzinfo=UTC)
MODEL = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:model/m"
ROLE_ARN = f"arn:aws:iam::{ACCOUNT}:role/service-role/Absent"


def role(*statements: dict[str, Any]) -> Role:
    return Role(
        account_id=ACCOUNT,
        identity_id="AROAEXAMPLE",
        name="R",
        created=NOW,
        trust_policy=json.dumps({"Version": "2012-10-17", "Statement": list(statements)}),
    )


def trust(effect: str = "Allow", service: str = "sagemaker.amazonaws.com", **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Principal": {"Service": service}, "Action": "sts:AssumeRole", **more}


@pytest.mark.parametrize(
    ("statements", "trusted"),
    [
        ([trust()], True),
        ([trust(service="lambda.amazonaws.com")], False),
        ([trust(), trust("Deny")], False),
        ([trust(Action="sts:TagSession")], False),
        ([{"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}], False),
        ([trust(Condition={"StringEquals": {"aws:SourceAccount": ACCOUNT}})], True),
        ([trust(Condition={"StringEquals": {"aws:SourceAccount": OTHER}})], False),
        ([trust(Condition={"ArnLike": {"aws:SourceArn": f"arn:aws:sagemaker:*:{ACCOUNT}:*"}})], True),
        ([trust(Condition={"ArnLike": {"aws:SourceArn": "arn:aws:sagemaker:*:*:endpoint/*"}})], False),
    ],
)
def test_a_role_trusts_the_platform_by_its_trust_policy(
    statements: list[dict[str, Any]], trusted: bool
) -> None:
    assert rules.trusts_platform(role(*statements), source_arn=MODEL) is trusted


def stand_in(role_arn: str | None = ROLE_ARN) -> tuple[Access, sessions.Session]:
    """The session of a role that does not exist, as a gateway knows it."""
    issued = rules.issue_for_account(SEALER, ACCOUNT, role_arn, seconds=3600, now=NOW)
    access = Access(
        AccessKey(
            access_key_id="AKIAROOT",
            secret_access_key="s",
            account_id="000000000000",
            principal_arn="arn:aws:iam::000000000000:root",
            user_id="000000000000",
        ),
        open_token=lambda token: sessions.open_token(SEALER, token.decode(), NOW),
    )
    roots = {each: _root(each) for each in ("000000000000", ACCOUNT, OTHER)}
    access.replace({"identities": roots, "policies": {}})
    return access, access.open_session(issued.session_token.encode())


def _root(account_id: str) -> dict[str, Any]:
    return {
        "id": account_id,
        "arn": f"arn:aws:iam::{account_id}:root",
        "account_id": account_id,
        "tags": {},
        "attached": [],
        "inline": {},
        "access_keys": {},
    }


@pytest.mark.parametrize(
    ("action", "resource", "allowed"),
    [
        ("s3:GetObject", "arn:aws:s3:::models/m.tar.gz", True),
        ("s3:PutBucketPolicy", "arn:aws:s3:::models", True),
        ("sagemaker:InvokeEndpoint", f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/e", True),
        ("sagemaker:InvokeEndpoint", f"arn:aws:sagemaker:us-east-1:{OTHER}:endpoint/e", False),
        ("iam:PassRole", ROLE_ARN, False),
        ("iam:CreateAccessKey", f"arn:aws:iam::{ACCOUNT}:root", False),
        ("sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/other", False),
        ("moorage:Read", "*", False),
        ("moorage:Write", "*", False),
        ("moorage:CreateAccount", "*", False),
    ],
)
def test_a_role_that_does_not_exist_acts_for_its_account_only(
    action: str, resource: str, allowed: bool
) -> None:
    access, session = stand_in()
    if allowed:
        access.authorize(session, action, resource, dict)
    else:
        with pytest.raises(AccessDeniedException, match="because no session policy allows"):
            access.authorize(session, action, resource, dict)


@pytest.mark.parametrize(
    "principal", ["*", {"AWS": ACCOUNT}, {"AWS": f"arn:aws:sts::{ACCOUNT}:assumed-role/Absent/SageMaker"}]
)
@pytest.mark.parametrize("owner", [ACCOUNT, OTHER])
def test_buckets_of_other_accounts_are_closed_to_it_whatever_they_allow(
    principal: object, owner: str
) -> None:
    access, session = stand_in()
    statement = {"Effect": "Allow", "Principal": principal, "Action": "s3:*", "Resource": "arn:aws:s3:::b/*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": statement})
    access.replace_bucket_policies({"b": {"account_id": owner, "document": document}})
    if owner == ACCOUNT:
        access.authorize(session, "s3:GetObject", "arn:aws:s3:::b/k", dict)
    else:
        with pytest.raises(AccessDeniedException):
            access.authorize(session, "s3:GetObject", "arn:aws:s3:::b/k", dict)


def test_the_policy_of_a_bucket_denies_it_by_its_role() -> None:
    access, session = stand_in()
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::b/*",
        "Condition": {"ArnEquals": {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/Absent"}},
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": statement})
    access.replace_bucket_policies({"b": {"account_id": ACCOUNT, "document": document}})
    with pytest.raises(AccessDeniedException, match="explicit deny in a resource-based policy"):
        access.authorize(session, "s3:GetObject", "arn:aws:s3:::b/k", dict)


@pytest.mark.parametrize(
    ("role_arn", "name"),
    [
        (None, "SageMaker"),
        ("arn:aws:iam::999988887777:role/service-role/AmazonSageMaker-1", "AmazonSageMaker-1"),
        ("arn:aws:iam::999988887777:roleX", "X"),
        ("arn:aws:iam::999988887777:role/x/", "SageMaker"),
    ],
)
def test_its_sessions_are_of_the_account_that_names_it(role_arn: str | None, name: str) -> None:
    _, session = stand_in(role_arn)
    assert session.principal_arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/SageMaker"
    assert (session.account_id, session.identity_id) == (ACCOUNT, ACCOUNT)
    assert session.stands_for_account
