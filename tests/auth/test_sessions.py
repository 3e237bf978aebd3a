"""Temporary credentials: what a token carries, and which tokens are refused."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from moorage.auth.identities import Role, assumed_role_arn, new_role_id
from moorage.auth.sealing import Sealer
from moorage.auth.sessions import (
    ExpiredTokenError,
    InvalidTokenError,
    TemporaryCredentials,
    issue,
    open_token,
)

SEALER = Sealer(b"k" * 32)
NOW = datetime(2026, 3, 1, 6, 30, 0, 123456, tzinfo=UTC)
ROLE = Role(
    account_id="111122223333",
    identity_id=new_role_id(),
    name="deployer",
    path="/ops/",
    created=NOW,
    trust_policy="{}",
)


def credentials(**changes: Any) -> TemporaryCredentials:
    arguments: dict[str, Any] = {
        "account_id": ROLE.account_id,
        "principal_arn": assumed_role_arn(ROLE, "ann"),
        "user_id": f"{ROLE.identity_id}:ann",
        "identity_arn": ROLE.arn,
        "duration_seconds": 900,
        "now": NOW,
    }
    return issue(SEALER, **arguments | changes)


def test_a_token_carries_the_whole_session() -> None:
    made = credentials(session_policy='{"a": 1}', session_policy_arns=["arn:p"], tags={"team": "red"})
    assert made.access_key_id.startswith("ASIA")
    assert len(made.access_key_id) == 20
    assert made.expiration == NOW.replace(microsecond=0) + timedelta(seconds=900)
    session = open_token(SEALER, made.session_token, NOW)
    assert session.access_key_id == made.access_key_id
    assert session.secret_access_key == made.secret_access_key
    assert session.account_id == "111122223333"
    assert session.principal_arn == "arn:aws:sts::111122223333:assumed-role/deployer/ann"
    assert session.identity_arn == "arn:aws:iam::111122223333:role/ops/deployer"
    assert session.identity_id == ROLE.identity_id
    assert session.expiration == made.expiration
    assert session.session_policy == '{"a": 1}'
    assert session.session_policy_arns == ("arn:p",)
    assert session.tags == {"team": "red"}


def test_nothing_secret_is_shown() -> None:
    made = credentials()
    session = open_token(SEALER, made.session_token, NOW)
    for secret in (made.secret_access_key, made.session_token):
        assert secret not in repr(made)
        assert secret not in repr(session)


def test_a_session_ends_when_it_was_said_to() -> None:
    made = credentials()
    open_token(SEALER, made.session_token, made.expiration - timedelta(microseconds=1))
    with pytest.raises(ExpiredTokenError, match="2026-03-01T06:45:00Z"):
        open_token(SEALER, made.session_token, made.expiration)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "nonsense",
        Sealer(b"l" * 32).seal(b"{}", purpose="session-token"),
        SEALER.seal(b"{}", purpose="access-key"),
        credentials().session_token[:-4],
    ],
)
def test_other_tokens_are_invalid(token: str) -> None:
    with pytest.raises(InvalidTokenError):
        open_token(SEALER, token, NOW)


def test_a_token_without_policy_fits_everywhere() -> None:
    longest = "x" * 64
    role_arn = f"arn:aws:iam::111122223333:role/{'p' * 510}/{longest}"
    principal = f"arn:aws:sts::111122223333:assumed-role/{longest}/{longest}"
    made = credentials(identity_arn=role_arn, principal_arn=principal, user_id=f"{'A' * 21}:{longest}")
    assert len(made.session_token) < 2048
