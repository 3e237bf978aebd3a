"""What a gateway knows of callers: sessions beyond those it keeps at hand, and sessions of those who are no more."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from moorage.auth import access as access_module
from moorage.auth.access import Access, session_headers
from moorage.auth.credentials import AccessKey
from moorage.auth.sessions import Session
from moorage.errors import AccessDeniedException, UnrecognizedClientException

ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/app"
ENDPOINT = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/e"
INVOKE = "sagemaker:InvokeEndpoint"
ROOT = AccessKey(
    access_key_id="AKIAROOT",
    secret_access_key="s",
    account_id=ACCOUNT,
    principal_arn=f"arn:aws:iam::{ACCOUNT}:root",
    user_id=ACCOUNT,
)
ALLOWS = json.dumps(
    {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": INVOKE, "Resource": ENDPOINT}}
)


def identity(identity_id: str, arn: str, **changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {"tags": {}, "access_keys": {}, "attached": [], "inline": {}}
    return {"id": identity_id, "arn": arn, "account_id": ACCOUNT, "kind": "role", **plain, **changes}


SNAPSHOT: dict[str, Any] = {
    "identities": {"AROAAPP": identity("AROAAPP", ROLE, attached=["invoke"])},
    "policies": {"invoke": ALLOWS},
}


def session(name: str, **changes: Any) -> Session:
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "access_key_id": f"ASIA{name}",
        "secret_access_key": "s",
        "account_id": ACCOUNT,
        "principal_arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/app/{name}",
        "user_id": f"AROAAPP:{name}",
        "expires_at": (now + timedelta(hours=1)).timestamp(),
        "identity_arn": ROLE,
        "issued": now,
    }
    return Session(**(values | changes))


def access(*sessions: Session) -> Access:
    by_token = {each.access_key_id.encode(): each for each in sessions}
    made = Access(ROOT, open_token=by_token.__getitem__)
    made.replace(SNAPSHOT)
    return made


def may(known: Access, key: AccessKey, resource: str = ENDPOINT) -> bool:
    try:
        known.authorize(key, INVOKE, resource, dict)
    except AccessDeniedException:
        return False
    return True


def test_sessions_beyond_those_kept_are_allowed_what_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_module, "_MOST_SESSIONS", 3)
    limited = session("limited", session_policy=ALLOWS.replace("Allow", "Deny"))
    sessions = [limited, *(session(f"s{number}") for number in range(10))]
    known = access(*sessions)
    opened = [known.open_session(each.access_key_id.encode()) for each in sessions]
    for _ in range(2):
        assert [may(known, key) for key in opened] == [False] + [True] * 10
    assert not may(known, opened[1], ENDPOINT + "-other")


def test_a_session_ends_with_its_role() -> None:
    known = access(session("s"))
    opened = known.open_session(b"ASIAs")
    known.replace({**SNAPSHOT, "identities": {"AROAOTHER": identity("AROAOTHER", ROLE, attached=["invoke"])}})
    with pytest.raises(UnrecognizedClientException):
        may(known, opened)
    with pytest.raises(UnrecognizedClientException):
        known.open_session(b"ASIAs")


def test_the_controller_is_told_of_sessions_alone() -> None:
    ((name, value),) = session_headers(session("s", tags={"team": "ml"}))
    assert name == b"x-moorage-session"
    assert json.loads(value)["session_tags"] == {"team": "ml"}
    assert session_headers(ROOT) == []


def test_a_resource_policy_that_cannot_be_read_denies_everything() -> None:
    known = access(session("s"))
    opened = known.open_session(b"ASIAs")
    assert may(known, opened)
    known.replace_resource_policies({ENDPOINT: '{"Statement": "of another version"}'})
    assert not may(known, opened)
    assert not may(known, ROOT)
    assert may(known, ROOT, ENDPOINT + "-2")
    known.replace_resource_policies({})
    assert may(known, opened)


def test_conditions_see_the_tags_of_endpoints() -> None:
    condition = {"StringEquals": {"aws:ResourceTag/team": "ml"}}
    allows = {"Effect": "Allow", "Action": INVOKE, "Resource": "*", "Condition": condition}
    document = json.dumps({"Version": "2012-10-17", "Statement": allows})
    known = Access(ROOT, open_token={b"t": session("s")}.__getitem__)
    known.replace({**SNAPSHOT, "policies": {"invoke": document}})
    opened = known.open_session(b"t")
    elsewhere = ENDPOINT.replace(ACCOUNT, "444455556666")
    known.replace_resource_policies(
        {elsewhere: json.dumps({"Version": "2012-10-17", "Statement": {**allows, "Principal": "*"}})}
    )
    assert not may(known, opened)
    known.change_resource_tags({"whole": True, "tags": {ENDPOINT: {"team": "ml"}, elsewhere: {"team": "ml"}}})
    assert may(known, opened)
    assert not may(known, opened, ENDPOINT + "-2")
    assert may(known, opened, elsewhere)
    known.change_resource_tags(
        {"whole": False, "tags": {ENDPOINT: {"team": "bi"}, elsewhere: {"team": "bi"}}}
    )
    assert not may(known, opened)
    assert not may(known, opened, elsewhere)
    known.change_resource_tags({"whole": False, "tags": {ENDPOINT: {"team": "ml"}, elsewhere: None}})
    assert may(known, opened)
    known.replace_resource_policies({})
    assert may(known, opened), "tags are known on"
    known.change_resource_tags({"whole": True, "tags": {}})
    assert not may(known, opened)
