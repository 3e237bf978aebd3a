"""Which documents can be the policy of a bucket, in S3's words, and which of them are public."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.auth.actions import S3_BUCKET_ACTIONS, S3_OBJECT_ACTIONS
from moorage.auth.bucket_policy_documents import MalformedBucketPolicy, compile_bucket_policy, is_public

BUCKET = "data"
ARN = f"arn:aws:s3:::{BUCKET}"
ACCOUNT = "111122223333"
VALID = {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "s3:GetObject", "Resource": f"{ARN}/*"}


def document(**changes: Any) -> dict[str, Any]:
    """Of one statement; None takes an element away."""
    statement = {key: value for key, value in {**VALID, **changes}.items() if value is not None}
    return {"Version": "2012-10-17", "Statement": [statement]}


def problem(text: str | dict[str, Any]) -> str | None:
    raw = text if isinstance(text, str) else json.dumps(text)
    try:
        compile_bucket_policy(raw.encode(), bucket=BUCKET)
    except MalformedBucketPolicy as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"Effect": "Deny"},
        {"Principal": "*"},
        {"Principal": {"AWS": "*"}},
        {"Principal": {"AWS": [ACCOUNT, f"arn:aws:iam::{ACCOUNT}:user/a/b"]}},
        {"Principal": {"Service": "sagemaker.amazonaws.com"}},
        {"Principal": None, "NotPrincipal": {"AWS": ACCOUNT}, "Effect": "Deny"},
        {"Action": "s3:*"},
        {"Action": "*"},
        {"Action": ["s3:get*", "S3:PUTOBJECT"]},
        {"Action": None, "NotAction": "s3:DeleteBucket"},
        {"Action": "s3:ListBucket", "Resource": ARN},
        {"Action": ["s3:ListBucket", "s3:GetObject"], "Resource": [ARN, f"{ARN}/*"]},
        {"Action": ["s3:ListBucket", "s3:GetObject"], "Resource": f"{ARN}*"},
        {"Action": "s3:*", "Resource": ARN},
        {"Action": "s3:Get*", "Resource": ARN},
        {"Resource": f"{ARN}/${{aws:username}}/*"},
        {"Resource": None, "NotResource": f"{ARN}/private/*"},
        {"Condition": {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}},
    ],
)
def test_policies_of_the_bucket(changes: dict[str, Any]) -> None:
    assert problem(document(**changes)) is None


RESOURCE = "Policy has invalid resource"
ACTION = "Policy has invalid action"
PRINCIPAL = "Invalid principal in policy"
NOT_APPLICABLE = "Action does not apply to any resource(s) in statement"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"Effect": None}, "Missing required field Effect"),
        ({"Effect": "allow"}, "Invalid effect: allow"),
        ({"Principal": None}, "Missing required field Principal"),
        ({"Principal": {}}, PRINCIPAL),
        ({"Principal": {"AWS": []}}, PRINCIPAL),
        ({"Principal": {"AWS": "alice"}}, PRINCIPAL),
        ({"Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/*"}}, PRINCIPAL),
        ({"Principal": {"Other": "*"}}, PRINCIPAL),
        ({"Principal": None, "NotPrincipal": "?"}, PRINCIPAL),
        ({"Action": None}, "Missing required field Action"),
        ({"Action": []}, ACTION),
        ({"Action": 1}, ACTION),
        ({"Action": "s3:NoSuchAction"}, ACTION),
        ({"Action": "s3:NoSuch*"}, ACTION),
        ({"Action": "ec2:*"}, ACTION),
        ({"Action": ["s3:GetObject", "sagemaker:InvokeEndpoint"]}, ACTION),
        ({"Action": "s3:CreateBucket", "Resource": ARN}, ACTION),
        ({"Action": "s3:ListAllMyBuckets", "Resource": ARN}, ACTION),
        ({"Action": None, "NotAction": "s3:NoSuchAction"}, ACTION),
        ({"Resource": None}, "Missing required field Resource"),
        ({"Resource": "*"}, RESOURCE),
        ({"Resource": []}, RESOURCE),
        ({"Resource": "arn:aws:s3:::*"}, RESOURCE),
        ({"Resource": "arn:aws:s3:::dat*"}, RESOURCE),
        ({"Resource": "arn:aws:s3:::data2/*"}, RESOURCE),
        ({"Resource": "arn:aws:s3:::other/*"}, RESOURCE),
        ({"Resource": "arn:aws:s3:::Data/*"}, RESOURCE),
        ({"Resource": [f"{ARN}/*", "arn:aws:s3:::other/*"]}, RESOURCE),
        ({"Resource": None, "NotResource": "arn:aws:s3:::other/*"}, RESOURCE),
        ({"Action": "s3:GetObject", "Resource": ARN}, NOT_APPLICABLE),
        ({"Action": "s3:ListBucket", "Resource": f"{ARN}/*"}, NOT_APPLICABLE),
        ({"Action": ["s3:ListBucket", "s3:GetObject"], "Resource": f"{ARN}/*"}, NOT_APPLICABLE),
        ({"Action": "s3:PutObject*", "Resource": ARN}, NOT_APPLICABLE),
    ],
)
def test_what_s3_refuses_of_a_statement(changes: dict[str, Any], text: str) -> None:
    assert problem(document(**changes)) == text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("", "Policies must be valid JSON and the first byte must be '{'"),
        ("[]", "Policies must be valid JSON and the first byte must be '{'"),
        (" {}", "Policies must be valid JSON and the first byte must be '{'"),
        ("{", "This policy contains invalid Json"),
        ('{"a": ' + "[" * 10_000, "This policy contains invalid Json"),
        ("{}", "Missing required field Statement"),
        ('{"Statement": []}', "Could not parse the policy: Statement is empty!"),
        ('{"Version": "2020-01-01", "Statement": [{}]}', "The policy must contain a valid version string"),
        ('{"Version": [], "Statement": [{}]}', "The policy must contain a valid version string"),
        ('{"Statement": [1]}', "Policies must be valid JSON and the first byte must be '{'"),
        ("{" + " " * 20480 + "}", "Policies must not be larger than 20480 bytes"),
    ],
)
def test_what_s3_refuses_of_a_document(raw: str, text: str) -> None:
    assert problem(raw) == text


@pytest.mark.parametrize(
    "changes",
    [
        {"Condition": {"StringSoundsLike": {"aws:UserAgent": "x"}}},
        {"Condition": {"IpAddress": {"aws:SourceIp": "nowhere"}}},
        {"Unknown": 1},
        {"Sid": 1},
    ],
)
def test_what_else_is_no_policy_is_told_by_its_element(changes: dict[str, Any]) -> None:
    text = problem(document(**changes))
    assert text is not None
    assert next(iter(changes)) in text


@pytest.mark.parametrize(
    ("action", "key", "applies"),
    [
        ("s3:ListBucket", "s3:prefix", True),
        ("s3:ListBucketVersions", "S3:Max-Keys", True),
        ("s3:ListBucketMultipartUploads", "s3:prefix", False),
        ("s3:GetObject", "s3:prefix", False),
        (["s3:ListBucket", "s3:GetObject"], "s3:delimiter", False),
        (["s3:ListBucket", "s3:Get*"], "s3:delimiter", True),
        ("s3:*", "s3:prefix", True),
        ("s3:PutObject", "s3:x-amz-acl", True),
        (["s3:GetObject", "s3:PutObject"], "s3:x-amz-acl", False),
        ("s3:GetObjectVersion", "s3:VersionId", True),
        ("s3:GetObject", "s3:VersionId", False),
        ("s3:GetObject", "aws:SourceIp", True),
    ],
)
def test_a_condition_key_goes_with_all_actions_that_are_named(action: Any, key: str, applies: bool) -> None:
    condition = {"Null": {key: "true"}}
    text = problem(document(Action=action, Resource=[ARN, f"{ARN}/*"], Condition=condition))
    words = "Conditions do not apply to combination of actions and resources in statement"
    assert text == (None if applies else words)


def test_a_condition_key_that_is_never_filled() -> None:
    text = problem(document(Condition={"StringEquals": {"s3:prefixx": "a"}}))
    assert text is not None
    assert text.startswith("Policy has an invalid condition key. ")
    assert "never fills the condition key s3:prefixx" in text
    assert "s3:x-amz-acl" in text


def test_a_document_that_is_not_utf8() -> None:
    with pytest.raises(MalformedBucketPolicy, match="invalid Json"):
        compile_bucket_policy(b'{"\xff": 1}', bucket=BUCKET)


def test_no_action_is_both_of_the_bucket_and_of_objects() -> None:
    assert not S3_OBJECT_ACTIONS & S3_BUCKET_ACTIONS


@pytest.mark.parametrize(
    ("changes", "public"),
    [
        ({}, False),
        ({"Principal": "*"}, True),
        ({"Principal": {"AWS": ["*"]}}, True),
        ({"Principal": "*", "Effect": "Deny"}, False),
        ({"Principal": None, "NotPrincipal": {"AWS": ACCOUNT}}, True),
        ({"Principal": "*", "Condition": {"StringEquals": {"aws:PrincipalAccount": ACCOUNT}}}, False),
        ({"Principal": "*", "Condition": {"StringNotEquals": {"aws:PrincipalAccount": ACCOUNT}}}, True),
        ({"Principal": "*", "Condition": {"StringEqualsIfExists": {"aws:PrincipalAccount": ACCOUNT}}}, True),
        ({"Principal": "*", "Condition": {"StringEquals": {"aws:Referer": "https://example.com"}}}, True),
        ({"Principal": "*", "Condition": {"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/a"}}}, True),
        ({"Principal": "*", "Condition": {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}}, False),
        ({"Principal": "*", "Condition": {"IpAddress": {"aws:SourceIp": ["192.0.2.1", "0.0.0.0/1"]}}}, True),
        ({"Principal": "*", "Condition": {"StringLike": {"aws:userid": "AROA1:*"}}}, True),
    ],
)
def test_public_policies(changes: dict[str, Any], public: bool) -> None:
    text = json.dumps(document(**changes))
    compile_bucket_policy(text.encode(), bucket=BUCKET)
    assert is_public(text) is public


# --- Anything else -------------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
TEXTS = st.sampled_from(
    [
        "*",
        "Allow",
        "Deny",
        ARN,
        f"{ARN}/*",
        f"{ARN}/${{aws:username}}",
        ACCOUNT,
        "s3:*",
        "s3:ListBucket",
        "${",
        "",
    ]
)
VALUES = st.recursive(
    SCALARS | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["AWS", "Service", "StringLike", "IpAddress", "aws:SourceIp", "s3:prefix"]),
            inner,
            max_size=2,
        )
    ),
    max_leaves=4,
)
ELEMENTS = st.sampled_from(
    [
        "Sid",
        "Effect",
        "Principal",
        "NotPrincipal",
        "Action",
        "NotAction",
        "Resource",
        "NotResource",
        "Condition",
    ]
)
STATEMENTS = st.dictionaries(ELEMENTS, VALUES, max_size=2).map(lambda changes: {**VALID, **changes}) | VALUES


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "Version": VALUES,
            "Id": VALUES,
            "Statement": STATEMENTS | st.lists(STATEMENTS, max_size=2),
        },
    )
)
def test_whatever_is_put_is_a_policy_or_is_refused(given_document: dict[str, Any]) -> None:
    text = json.dumps(given_document)
    if problem(text) is None:
        assert is_public(text) in (True, False)
