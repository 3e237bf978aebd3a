"""Which condition keys policies may name: the registry is compared with the contexts of real requests."""

import json
from typing import Any

import pytest

from moorage.auth import condition_keys
from moorage.auth.actions import ACTIONS
from moorage.auth.aws_managed import AWS_MANAGED
from moorage.auth.condition_keys import ABSENT, EVERY_REQUEST, FILLED
from moorage.auth.policy import (
    Caller,
    CallerKind,
    Context,
    PolicyError,
    PolicyKind,
    Request,
    compile_policy,
    evaluate,
)
from moorage.auth.policy_documents import check_condition_keys

ACCOUNT = "111122223333"
ALICE = Caller(
    arn=f"arn:aws:iam::{ACCOUNT}:user/alice",
    account_id=ACCOUNT,
    kind=CallerKind.USER,
    user_id="AIDAALICE",
    user_name="alice",
)
UNKNOWN = (
    "aws:SourceIpp",
    "aws:PrincipalTag",
    "aws:PrincipalTag/",
    "aws:ResourceTags/team",
    "s3:ExistingObjectTags/team",
    "s3:TlsVersion",
    "s3:prefixes",
    "sagemaker:Targetmodels",
    "iam:AssociatedResourceArn",
    "moorage:Key",
    "ec2:Region",
    "nothing",
)
KNOWN = [key.replace("/*", "/any") for keys in (*FILLED.values(), *ABSENT.values()) for key in keys]


def document(**elements: Any) -> str:
    statement = {"Effect": "Allow", "Action": "*", "Resource": "*", **elements}
    return json.dumps({"Version": "2012-10-17", "Statement": statement})


def problem(text: str, kind: PolicyKind = PolicyKind.IDENTITY) -> str | None:
    try:
        check_condition_keys(compile_policy(text, name="p", kind=kind), text)
    except PolicyError as error:
        return str(error)
    return None


def when(key: str, operator: str = "StringEquals", value: Any = "x") -> dict[str, Any]:
    return {"Condition": {operator: {key: value}}}


# --- What may be stored --------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KNOWN)
def test_known_keys_may_be_named(key: str) -> None:
    for spelt in (key, key.lower(), key.upper()):
        assert problem(document(**when(spelt))) is None
        assert problem(document(Resource=f"arn:aws:s3:::b/${{{spelt}}}")) is None


@pytest.mark.parametrize("key", UNKNOWN)
@pytest.mark.parametrize("effect", ["Allow", "Deny"])
def test_others_are_refused_wherever_they_are_named(effect: str, key: str) -> None:
    for elements in (
        when(key),
        when(key, "StringNotEqualsIfExists"),
        when(key, "Null", "true"),
        when(key, "ForAllValues:StringLike"),
        when("aws:username", value=f"${{{key}}}"),
        when("aws:username", value=["x", f"${{{key}, 'default'}}"]),
        {"Resource": ["arn:aws:s3:::b", f"arn:aws:s3:::b/${{{key}}}/*"]},
        {"Resource": None, "NotResource": f"arn:aws:s3:::b/${{{key}}}"},
    ):
        given = {"Effect": effect, **elements}
        if given.get("Resource", "") is None:
            text = json.loads(document(**given))
            del text["Statement"]["Resource"]
            refused = problem(json.dumps(text))
        else:
            refused = problem(document(**given))
        assert refused is not None
        assert refused.startswith(f"Statement 1: this server never fills the condition key {key},")


def test_the_refusal_names_what_may_be_named_instead() -> None:
    refused = problem(document(Action="s3:ListBucket", Sid="List", **when("s3:prefixx")))
    assert refused is not None
    assert refused.startswith("Statement 1 (List): this server never fills the condition key s3:prefixx,")
    listed = refused.partition("it fills: ")[2].removesuffix(".").split(", ")
    assert set(listed) == {*FILLED[EVERY_REQUEST], *FILLED["s3"]}


@pytest.mark.parametrize(
    "action",
    [
        "ec2:*",
        ["ec2:RunInstances", "kms:Decrypt"],
        "iam:CreateServiceLinkedRole",
        "sagemaker:CreateTrainingJob",
        "s3:PutObjectRetention",
        "sts:AssumeRoleWithWebIdentity",
    ],
)
def test_a_statement_about_what_is_not_here_may_name_anything(action: Any) -> None:
    assert problem(document(Action=action, **when("ec2:Region"))) is None


@pytest.mark.parametrize("action", ["*", "sagemaker:*", "sagemaker:Create*", ["ec2:*", "S3:getobject"]])
def test_a_statement_that_is_also_about_what_is_here_may_not(action: Any) -> None:
    assert problem(document(Action=action, **when("ec2:Region"))) is not None


def test_a_statement_about_all_but_some_actions() -> None:
    for not_action, refused in (("ec2:*", True), ("*", False), (["s3:*", "sagemaker:*"], True)):
        text = json.loads(document(**when("ec2:Region")))
        del text["Statement"]["Action"]
        text["Statement"]["NotAction"] = not_action
        assert (problem(json.dumps(text)) is not None) is refused


def test_what_looks_like_a_variable_is_none_in_old_policies() -> None:
    text = json.loads(document(Resource="arn:aws:s3:::b/${no:key}"))
    text["Version"] = "2008-10-17"
    assert problem(json.dumps(text)) is None


def test_trust_policies() -> None:
    trust = {"Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}
    for key, refused in (("sts:ExternalId", False), ("aws:SourceArn", False), ("sts:ExternalIds", True)):
        text = json.loads(document(**trust, **when(key)))
        del text["Statement"]["Resource"]
        assert (problem(json.dumps(text), PolicyKind.TRUST) is not None) is refused


@pytest.mark.parametrize("arn", AWS_MANAGED)
def test_awss_own_policies_name_known_keys(arn: str) -> None:
    assert problem(AWS_MANAGED[arn].document) is None


def test_no_key_is_both_filled_and_absent() -> None:
    filled = {key.lower() for keys in FILLED.values() for key in keys}
    absent = [key.lower() for keys in ABSENT.values() for key in keys]
    assert not filled & set(absent)
    assert len(absent) == len(set(absent))


# --- What an earlier version stored --------------------------------------------------------------------


def decide(text: str, context: Context, resource: str = "arn:aws:s3:::b/k") -> tuple[bool, bool]:
    allows = compile_policy(document(), name="all", kind=PolicyKind.IDENTITY)
    stored = compile_policy(text, name="stored", kind=PolicyKind.IDENTITY)
    request = Request("s3:GetObject", resource, ALICE, context)
    return (
        evaluate(request, identity=[stored], resource_account_id=ACCOUNT).allowed,
        evaluate(request, identity=[allows, stored], resource_account_id=ACCOUNT).allowed,
    )


UNJUDGED = [
    when(UNKNOWN[0], operator, value)
    for operator, value in (
        ("StringEquals", "x"),
        ("StringNotEquals", "x"),
        ("StringLikeIfExists", "x"),
        ("IpAddress", "192.0.2.0/24"),
        ("NotIpAddress", "192.0.2.0/24"),
        ("Null", "true"),
        ("Null", "false"),
        ("ForAllValues:StringEquals", "x"),
        ("ForAnyValue:StringEquals", "x"),
        ("Bool", "true"),
    )
] + [
    when("aws:username", value=f"${{{UNKNOWN[0]}}}"),
    when("aws:username", "StringNotEquals", f"${{{UNKNOWN[0]}}}"),
    {"Resource": f"arn:aws:s3:::b/${{{UNKNOWN[0]}}}"},
    {"Resource": f"arn:aws:s3:::${{{UNKNOWN[0]}, 'b'}}/k"},
]


@pytest.mark.parametrize("elements", UNJUDGED)
def test_a_deny_that_cannot_be_judged_denies_and_an_allow_does_not_allow(elements: dict[str, Any]) -> None:
    assert decide(document(Effect="Allow", **elements), {}) == (False, True)
    assert decide(document(Effect="Deny", **elements), {}) == (False, False)


@pytest.mark.parametrize("effect", ["Allow", "Deny"])
def test_the_same_of_resources_that_are_excepted(effect: str) -> None:
    text = json.loads(document(Effect=effect))
    del text["Statement"]["Resource"]
    text["Statement"]["NotResource"] = [f"arn:aws:s3:::b/${{{UNKNOWN[0]}}}", "arn:aws:s3:::excepted/*"]
    assert decide(json.dumps(text), {}) == (False, effect == "Allow")
    assert decide(json.dumps(text), {}, "arn:aws:s3:::excepted/k") == (False, True)


def test_what_can_be_judged_of_it_still_counts() -> None:
    condition = {"StringEquals": {UNKNOWN[0]: "x", "aws:Referer": "here"}}
    text = document(Effect="Deny", Action="s3:GetObject", Condition=condition)
    assert decide(text, {"aws:Referer": "here"}) == (False, False)
    assert decide(text, {"aws:Referer": "elsewhere"}) == (False, True)
    assert decide(text, {}) == (False, True)
    assert decide(document(Effect="Deny", Action="s3:PutObject", **when(UNKNOWN[0])), {}) == (False, True)


def test_a_simulation_may_give_the_key() -> None:
    text = document(Effect="Deny", **when(UNKNOWN[0]))
    assert decide(text, {UNKNOWN[0]: "x"}) == (False, False)
    assert decide(text, {UNKNOWN[0]: "y"}) == (False, True)


def test_keys_that_are_absent_as_on_aws_are_absent() -> None:
    for key in (key.replace("/*", "/any") for keys in ABSENT.values() for key in keys):
        assert decide(document(Effect="Deny", **when(key)), {}) == (False, True)
        assert decide(document(Effect="Deny", **when(key, "StringNotEquals")), {}) == (False, False)


# --- The registry ---------------------------------------------------------------------------------------


def test_actions_have_names_of_services() -> None:
    assert {action.partition(":")[0] for action in ACTIONS} == {
        "sagemaker",
        "iam",
        "sts",
        "logs",
        "moorage",
        "s3",
    }
    assert set(FILLED) - {EVERY_REQUEST} <= {action.partition(":")[0] for action in ACTIONS}
    assert condition_keys.can_matter(lambda action: action == "s3:getobject")
