"""Who there is: accounts, users, roles, access keys and managed policies, as values.

Ids have AWS's forms: twelve digits for an account, and for the rest a prefix that says what they are of, so that an
id found in a log or in a policy tells by itself. A user or role made anew under an old name gets a new id, by which
what was granted to the old one is told apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Literal

from moorage.auth.credentials import new_id

KeyStatus = Literal["Active", "Inactive"]
MOST_ACCESS_KEYS = 2
"""How many a user, or an account's root, may have: one in use and one to replace it by."""

_ID_LENGTH = 21
_KEY_ID_LENGTH = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    account_id: str
    name: str
    created: datetime

    @property
    def root_arn(self) -> str:
        return f"arn:aws:iam::{self.account_id}:root"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    kind: ClassVar[str] = "user"

    account_id: str
    identity_id: str
    name: str
    path: str = "/"
    created: datetime
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def arn(self) -> str:
        return identity_arn(self.kind, self.account_id, self.path, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    kind: ClassVar[str] = "role"

    account_id: str
    identity_id: str
    name: str
    path: str = "/"
    created: datetime
    tags: Mapping[str, str] = field(default_factory=dict)
    trust_policy: str
    description: str | None = None
    max_session_seconds: int = 3600

    @property
    def arn(self) -> str:
        return identity_arn(self.kind, self.account_id, self.path, self.name)


Identity = User | Role


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKeyRecord:
    """What may be known of an access key; its secret is told once. The root's key has no `user_name`."""

    access_key_id: str
    account_id: str
    user_name: str | None
    status: KeyStatus
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedPolicy:
    """A policy with an ARN, to be attached to many. Those of AWS itself belong to the account `aws`."""

    account_id: str
    policy_id: str
    name: str
    path: str = "/"
    description: str | None = None
    document: str
    created: datetime
    tags: Mapping[str, str] = field(default_factory=dict)
    attachments: int = 0

    @property
    def arn(self) -> str:
        return identity_arn("policy", self.account_id, self.path, self.name)


def identity_arn(kind: str, account_id: str, path: str, name: str) -> str:
    return f"arn:aws:iam::{account_id}:{kind}{path}{name}"


def assumed_role_arn(role: Role, session_name: str) -> str:
    """Who a session of a role is. It leaves the role's path out."""
    return f"arn:aws:sts::{role.account_id}:assumed-role/{role.name}/{session_name}"


def new_user_id() -> str:
    return new_id("AIDA", _ID_LENGTH)


def new_role_id() -> str:
    return new_id("AROA", _ID_LENGTH)


def new_policy_id() -> str:
    return new_id("ANPA", _ID_LENGTH)


def new_access_key_id(*, temporary: bool = False) -> str:
    return new_id("ASIA" if temporary else "AKIA", _KEY_ID_LENGTH)
