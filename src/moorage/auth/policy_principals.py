"""Who asks: callers, the context keys that follow from them, and the Principal element that names them.

The pages named here are of the IAM User Guide.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum


class CallerKind(Enum):
    """Kinds of principals. The values are those of `aws:PrincipalType`; a service has none."""

    ROOT = "Account"
    USER = "User"
    ASSUMED_ROLE = "AssumedRole"
    FEDERATED_USER = "FederatedUser"
    SERVICE = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An authenticated principal.

    `arn` is the ARN that GetCallerIdentity tells: for a role's session the assumed-role ARN; for a service its
    principal, such as `sagemaker.amazonaws.com`. `user_id` is the `UserId` of GetCallerIdentity, for a role's session
    `role-id:session-name`. `entity_arn` is the role or user behind a session; it must be given if that has a path.
    `tags` are the principal's tags, with a session's own over those of its role. A `confined` caller acts in its own
    account only, whatever another account's resource allows. `token_issued` is when its temporary credentials were
    issued, if it has any: as UTC time, `2026-03-01T06:30:00Z`.
    """

    arn: str
    account_id: str
    kind: CallerKind
    user_id: str
    user_name: str | None = None
    role_name: str | None = None
    session_name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    entity_arn: str | None = None
    confined: bool = False
    token_issued: str | None = None

    @property
    def entity(self) -> str:
        """The ARN of the IAM entity whose permissions a session has; of anyone else, its own."""
        if self.entity_arn is not None:
            return self.entity_arn
        partition = self.arn.split(":")[1] if self.arn.startswith("arn:") else "aws"
        if self.kind is CallerKind.ASSUMED_ROLE and self.role_name:
            return f"arn:{partition}:iam::{self.account_id}:role/{self.role_name}"
        if self.kind is CallerKind.FEDERATED_USER and self.user_name:
            return f"arn:{partition}:iam::{self.account_id}:user/{self.user_name}"
        return self.arn


def caller_of(
    *,
    arn: str,
    account_id: str,
    user_id: str,
    entity_arn: str,
    tags: Mapping[str, str],
    token_issued: str | None = None,
) -> Caller:
    """The owner of an access key. `entity_arn` is the root, user or role whose permissions the key has."""
    name = entity_arn.rpartition("/")[2]
    role_name = session_name = user_name = None
    confined = stands_for_account(arn, entity_arn)
    if ":assumed-role/" in arn:
        kind, session_name = CallerKind.ASSUMED_ROLE, arn.rpartition("/")[2]
        role_name = arn.split("/")[1] if confined else name
    elif entity_arn.endswith(":root"):
        kind = CallerKind.ROOT
    else:
        kind, user_name = CallerKind.USER, name
    return Caller(
        arn=arn,
        account_id=account_id,
        kind=kind,
        user_id=user_id,
        user_name=user_name,
        role_name=role_name,
        session_name=session_name,
        tags=tags,
        entity_arn=None if confined else entity_arn,
        confined=confined,
        token_issued=token_issued,
    )


def stands_for_account(arn: str, entity_arn: str) -> bool:
    """Whether a session is of a role that does not exist, and so acts with its account's permissions: a principal
    that is a role's session, with the root behind it (see `moorage.auth.execution_roles`)."""
    return ":assumed-role/" in arn and entity_arn.endswith(":root")


def caller_context(caller: Caller) -> dict[str, str | tuple[str, ...]]:
    """The global context keys about the principal, as in "AWS global condition context keys" and the table "Principal
    key values" of "IAM policy elements: Variables and tags"."""
    is_service = caller.kind is CallerKind.SERVICE
    context: dict[str, str | tuple[str, ...]] = {
        "aws:PrincipalIsAWSService": "true" if is_service else "false"
    }
    if is_service:
        return context | {
            "aws:PrincipalServiceName": caller.arn,
            "aws:PrincipalServiceNamesList": (caller.arn,),
        }
    # "For IAM roles, the request context returns the ARN of the role, not the ARN of the user that assumed the role."
    is_role = caller.kind is CallerKind.ASSUMED_ROLE
    context["aws:PrincipalArn"] = caller.entity if is_role else caller.arn
    context["aws:PrincipalAccount"] = caller.account_id
    context["aws:PrincipalType"] = str(caller.kind.value)
    context["aws:userid"] = caller.user_id
    if caller.kind is CallerKind.USER and caller.user_name:
        context["aws:username"] = caller.user_name
    if caller.token_issued is not None:
        context["aws:TokenIssueTime"] = caller.token_issued
        # "The key is present in the request context only when the principal uses temporary credentials."
        context["aws:MultiFactorAuthPresent"] = "false"
    return context | {f"aws:PrincipalTag/{key}": value for key, value in caller.tags.items()}


_CALLER_KEYS = frozenset(
    key.lower()
    for key in (
        "aws:PrincipalArn",
        "aws:PrincipalAccount",
        "aws:PrincipalType",
        "aws:PrincipalIsAWSService",
        "aws:PrincipalServiceName",
        "aws:PrincipalServiceNamesList",
        "aws:TokenIssueTime",
        "aws:MultiFactorAuthPresent",
        "aws:userid",
        "aws:username",
    )
)
_CALLER_TAG = "aws:principaltag/"
_OWNER_KEYS = frozenset(("aws:resourceaccount", "s3:resourceaccount"))


def is_about_caller(key: str) -> bool:
    return key in _CALLER_KEYS or key.startswith(_CALLER_TAG)


def is_derived(key: str) -> bool:
    """Whether the key follows from the caller, or from the resource and who owns it."""
    return key in _OWNER_KEYS or is_about_caller(key)


def owner_context(resource: str, account_id: str) -> dict[str, str]:
    """The keys about the resource's owner, in lower case."""
    keys = _OWNER_KEYS if resource.startswith("arn:aws:s3:::") else ("aws:resourceaccount",)
    return dict.fromkeys(keys, account_id)


class Level(IntEnum):
    """How precisely a Principal element names a caller."""

    NONE = 0
    ACCOUNT = 1
    ENTITY = 2
    DIRECT = 3


@dataclass(frozen=True, slots=True)
class Principals:
    """A Principal or NotPrincipal element."""

    everyone: bool
    accounts: frozenset[str]
    arns: frozenset[str]
    services: frozenset[str]
    federated: frozenset[str]
    negated: bool

    def level(self, caller: Caller) -> Level:
        named = self._named(caller)
        if not self.negated:
            return named
        return Level.NONE if self._exempt(caller, named) else Level.DIRECT

    def _named(self, caller: Caller) -> Level:
        if self.everyone:
            return Level.DIRECT
        if caller.kind is CallerKind.SERVICE:
            return Level.DIRECT if caller.arn in self.services else Level.NONE
        if caller.arn in self.arns or caller.arn in self.federated:
            return Level.DIRECT
        if caller.entity in self.arns:
            return Level.ENTITY
        if caller.account_id not in self.accounts:
            return Level.NONE
        return Level.DIRECT if caller.kind is CallerKind.ROOT else Level.ACCOUNT

    def _exempt(self, caller: Caller, named: Level) -> bool:
        """Beside a user or role, NotPrincipal is to name the account "of the not-denied principal" too, and still
        "all principals except the user" are meant ("AWS JSON policy elements: NotPrincipal"). So an account exempts
        everyone in it only if nobody of that account is named."""
        if named is Level.ACCOUNT:
            return all(_account_of(arn) != caller.account_id for arn in self.arns)
        return named is not Level.NONE


_TYPES = frozenset({"AWS", "Service", "Federated"})
_ACCOUNT_ID = re.compile(r"[0-9]{12}")
_ACCOUNT_ROOT = re.compile(r"arn:[a-z-]+:iam::([0-9]{12}):root")
_ARN = re.compile(
    r"arn:[a-z-]+:(iam::[0-9]{12}:(user|role)(/[^/*?\s]+)+"
    r"|sts::[0-9]{12}:(assumed-role/[^/*?\s]+/[^/*?\s]+|federated-user/[^/*?\s]+))"
)
_SERVICE = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")


def parse_principals(element: object, *, negated: bool) -> Principals:
    """Principal, or with `negated` NotPrincipal.

    Raises:
        ValueError: it names something that is no principal.
    """
    if element == "*":
        element = {"AWS": "*"}
    if not isinstance(element, Mapping) or not element:
        raise ValueError('must be "*" or an object')
    unknown = next((each for each in element if each not in _TYPES), None)
    if unknown is not None:
        raise ValueError(f"{unknown!r} is not a type of principal")
    named = {each: _names(element.get(each, [])) for each in _TYPES}
    for service in named["Service"]:
        if not _SERVICE.fullmatch(service):
            raise ValueError(f"{service!r} is not a service principal")
    accounts, arns = _accounts_and_arns(named["AWS"])
    return Principals(
        everyone="*" in named["AWS"],
        accounts=accounts,
        arns=arns,
        services=frozenset(named["Service"]),
        federated=frozenset(named["Federated"]),
        negated=negated,
    )


def _names(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    names = [each for each in values if isinstance(each, str)]
    if len(names) != len(values):
        raise ValueError("a type of principal must have a string or a list of strings")
    return names


def _accounts_and_arns(names: list[str]) -> tuple[frozenset[str], frozenset[str]]:
    """ "You cannot use a wildcard to match part of a principal name or ARN" ("AWS JSON policy elements: Principal").
    The account's number and its root's ARN mean the same."""
    accounts, arns = set(), set()
    for name in names:
        root = _ACCOUNT_ROOT.fullmatch(name)
        if root or _ACCOUNT_ID.fullmatch(name):
            accounts.add(root[1] if root else name)
        elif _ARN.fullmatch(name):
            arns.add(name)
        elif name != "*":
            raise ValueError(f"{name!r} is not an account, a user, a role or a session")
    return frozenset(accounts), frozenset(arns)


def _account_of(arn: str) -> str:
    return arn.split(":", 5)[4]
