"""Temporary credentials, kept nowhere: the session token that a client sends with each request carries them, sealed.

So any gateway can check any session without asking anyone, and a session outlives every restart. Only the expiry, and
the end of the user or role that it is of (`identity_id` is no more), end it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from moorage.auth.credentials import AccessKey, new_secret
from moorage.auth.identities import new_access_key_id
from moorage.auth.policy_principals import stands_for_account
from moorage.auth.sealing import Sealer, UnsealError

_PURPOSE = "session-token"


class InvalidTokenError(Exception):
    """Not a session token of this installation."""


class ExpiredTokenError(Exception):
    """A session token of this installation, of a session that has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporaryCredentials:
    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expiration: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(AccessKey):
    """The key that a session token carries, and what the token says of it.

    `principal_arn` and `user_id` are who acts: for a role `arn:aws:sts::…:assumed-role/NAME/SESSION` and
    `AROA…:SESSION`. `identity_arn` and `identity_id` are the user, role or root behind it, whose policies apply.
    `session_policy` and `session_policy_arns`, where there are any, limit what those allow.
    """

    expires_at: float
    identity_arn: str
    issued: datetime
    session_policy: str | None = None
    session_policy_arns: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity_id(self) -> str:
        return self.user_id.partition(":")[0]

    @property
    def stands_for_account(self) -> bool:
        """Whether it is of a role that does not exist; see `moorage.auth.execution_roles`."""
        return stands_for_account(self.principal_arn, self.identity_arn)

    @property
    def issued_text(self) -> str:
        """As policies see it."""
        return f"{self.issued:%Y-%m-%dT%H:%M:%SZ}"

    @property
    def expiration(self) -> datetime:
        return datetime.fromtimestamp(self.expires_at, UTC)


def issue(
    sealer: Sealer,
    *,
    account_id: str,
    principal_arn: str,
    user_id: str,
    identity_arn: str,
    duration_seconds: int,
    now: datetime,
    session_policy: str | None = None,
    session_policy_arns: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
) -> TemporaryCredentials:
    """Credentials for a session; for the arguments see `Session`."""
    # Whole seconds, as clients are told the time: it ends when they were told it does.
    issued = now.astimezone(UTC).replace(microsecond=0)
    expiration = issued + timedelta(seconds=duration_seconds)
    access_key_id, secret = new_access_key_id(temporary=True), new_secret()
    content = {
        "key": access_key_id,
        "secret": secret,
        "account": account_id,
        "principal": principal_arn,
        "user": user_id,
        "identity": identity_arn,
        "issued": int(issued.timestamp()),
        "expires": int(expiration.timestamp()),
        "policy": session_policy,
        "policies": list(session_policy_arns),
        "tags": dict(tags or {}),
    }
    text = json.dumps({name: value for name, value in content.items() if value}, separators=(",", ":"))
    return TemporaryCredentials(
        access_key_id=access_key_id,
        secret_access_key=secret,
        session_token=sealer.seal(text.encode(), purpose=_PURPOSE),
        expiration=expiration,
    )


def open_token(sealer: Sealer, token: str, now: datetime) -> Session:
    """The session of a token.

    Raises:
        InvalidTokenError, ExpiredTokenError: see there.
    """
    try:
        content = json.loads(sealer.unseal(token, purpose=_PURPOSE))
    except UnsealError as error:
        raise InvalidTokenError(str(error)) from error
    session = Session(
        access_key_id=content["key"],
        secret_access_key=content["secret"],
        account_id=content["account"],
        principal_arn=content["principal"],
        user_id=content["user"],
        identity_arn=content["identity"],
        issued=datetime.fromtimestamp(content["issued"], UTC),
        expires_at=content["expires"],
        session_policy=content.get("policy"),
        session_policy_arns=tuple(content.get("policies", ())),
        tags=content.get("tags", {}),
    )
    if now >= session.expiration:
        raise ExpiredTokenError(f"it expired at {session.expiration:%Y-%m-%dT%H:%M:%SZ}")
    return session
