"""Who the platform acts as for a model: execution roles as they are now. Rules are in `moorage.auth.execution_roles`.

What a model's role may read and write is decided in one place. Where the S3 is the embedded one, that is the gateway,
which is called with the role's credentials like by any client. Another S3 is called with the server's own keys, and
knows nothing of our roles; so every access is decided here before it is made (`ByPolicies`).
"""

import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from moorage.auth import execution_roles as rules
from moorage.auth import policy
from moorage.auth.authorizer import account_of
from moorage.auth.execution_roles import CannotAssumeRole
from moorage.auth.identities import Role, assumed_role_arn
from moorage.auth.policy_principals import caller_of
from moorage.auth.sealing import Sealer
from moorage.auth.sessions import TemporaryCredentials
from moorage.controller.permissions import compiled
from moorage.errors import NoSuchEntity
from moorage.storage.failures import DatabaseUnavailable
from moorage.storage.identities import IdentityStore
from moorage.storage.objects import (
    Acting,
    Credentials,
    ObjectError,
    ObjectUrl,
    Principal,
    RoleRefused,
    access_denied,
)

SESSION_SECONDS: Final = 3600
_RENEWED_BEFORE: Final = timedelta(seconds=600)
"""A transfer that has begun ends with the credentials that it began with."""
_BELIEVED_SECONDS: Final = 2.0
"""How long it is taken for granted that a role is as it was found: an asynchronous endpoint asks for each input."""
_MOST_BELIEVED: Final = 4096

_VERBS: Final = {
    "s3:GetObject": "read",
    "s3:ListBucket": "list",
    "s3:PutObject": "write",
    "s3:DeleteObject": "delete",
}


async def _no_changes() -> int:
    return 0


class ExecutionRoles:
    """The roles of all accounts, as the store has them. With `strict` a role that does not exist is refused. `known`
    returns when the gateways know of all changes of identities so far: the number of those changes."""

    def __init__(
        self,
        identities: IdentityStore,
        sealer: Sealer,
        *,
        strict: bool = False,
        known: Callable[[], Awaitable[int]] = _no_changes,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._identities = identities
        self._sealer = sealer
        self._strict = strict
        self.known = known
        self._clock = clock

    async def check(
        self, account_id: str, role_arn: str | None, *, source_arn: str, must_exist: bool = False
    ) -> Role | None:
        """The role that the platform is to act as for a model or an endpoint; None where it acts for the account.

        `must_exist`: it did when the model was made. Without a role that bounded it, the model may do nothing.

        Raises:
            CannotAssumeRole: it does not trust the platform, or is of another account, or has to exist and does not.
        """
        if role_arn is None:
            return None
        owner = account_of(role_arn)
        if owner != account_id:
            if self._strict or await self._is_account(owner):
                raise rules.cross_account()
            return None
        role = await self._find(account_id, role_arn)
        if role is None and (self._strict or must_exist):
            raise rules.cannot_assume(role_arn)
        if role is not None and not rules.trusts_platform(role, source_arn=source_arn):
            raise rules.cannot_assume(role_arn)
        return role

    async def credentials(
        self, account_id: str, role_arn: str | None, *, source_arn: str, must_exist: bool = False
    ) -> TemporaryCredentials:
        """For an hour. Raises as `check` does."""
        role = await self.check(account_id, role_arn, source_arn=source_arn, must_exist=must_exist)
        return await self.issue(account_id, role_arn, role)

    async def issue(self, account_id: str, role_arn: str | None, role: Role | None) -> TemporaryCredentials:
        """Credentials of what `check` has found, which every gateway takes when this returns."""
        await self.known()
        now = self._clock()
        if role is None:
            return rules.issue_for_account(
                self._sealer, account_id, role_arn, seconds=SESSION_SECONDS, now=now
            )
        return rules.issue_for_role(self._sealer, role, seconds=SESSION_SECONDS, now=now)

    async def policies(self, role: Role | None) -> tuple[list[policy.Policy], list[policy.Policy] | None]:
        """The identity-based policies of what `check` has found, and those that limit them."""
        if role is None:
            return [rules.WHOLE_ACCOUNT], [rules.ON_BEHALF_OF_ACCOUNT]
        return compiled(await self._identities.documents(role)), None

    async def _find(self, account_id: str, role_arn: str) -> Role | None:
        try:
            role = await self._identities.get(Role, account_id, role_arn.rpartition("/")[2])
        except NoSuchEntity:
            return None
        return role if role.arn == role_arn else None

    async def _is_account(self, account_id: str) -> bool:
        try:
            await self._identities.account(account_id)
        except NoSuchEntity:
            return False
        return True


class _Remembered:
    """What was found of principals, for a moment, and until identities change."""

    def __init__(self, roles: ExecutionRoles, find: Callable[[Principal], Awaitable[Acting]]) -> None:
        self._roles = roles
        self._find = find
        self._changes = 0
        self._found: dict[Principal, tuple[float, Acting]] = {}

    async def acting(self, principal: Principal) -> Acting:
        """Raises `RoleRefused`."""
        changes = await self._roles.known()
        now = time.monotonic()
        since, known = self._found.get(principal, (now, None))
        if known is not None and now - since < _BELIEVED_SECONDS and changes == self._changes:
            return known
        try:
            found = await self._find(principal)
        except CannotAssumeRole as error:
            raise RoleRefused(str(error)) from error
        except DatabaseUnavailable:
            if known is None:
                raise
            return known  # what a container has answered is written while the database is away
        if changes != self._changes or len(self._found) >= _MOST_BELIEVED:
            self._found.clear()
        self._changes = changes
        self._found[principal] = now, found
        return found


class ByCredentials:
    """The authority of an S3 that knows our roles: it is called with their credentials, and decides itself."""

    def __init__(self, roles: ExecutionRoles) -> None:
        self._roles = roles
        self._remembered = _Remembered(roles, self._find)

    async def acting(self, principal: Principal) -> Acting:
        return await self._remembered.acting(principal)

    async def _find(self, principal: Principal) -> Acting:
        role = await _role_of(self._roles, principal)
        return _AsRole(self._roles, principal, role)


class _AsRole:
    is_role = True

    def __init__(self, roles: ExecutionRoles, principal: Principal, role: Role | None) -> None:
        self._roles = roles
        self._principal = principal
        self._role = role

    @property
    def key(self) -> Hashable:
        """A role made anew under the same name is another one."""
        return (
            self._principal.account_id,
            self._principal.role_arn,
            self._role.identity_id if self._role is not None else None,
        )

    async def credentials(self) -> Credentials:
        issued = await self._roles.issue(self._principal.account_id, self._principal.role_arn, self._role)
        return Credentials(
            access_key_id=issued.access_key_id,
            secret_access_key=issued.secret_access_key,
            session_token=issued.session_token,
            expires=issued.expiration - _RENEWED_BEFORE,
        )

    def authorize(self, action: str, resource: str, context: Mapping[str, str]) -> None:
        """The S3 decides."""


class ByPolicies:
    """The authority of an S3 that knows nothing of our roles: their identity-based policies decide, and it is called
    with keys of the server's own. Its buckets belong to no account here."""

    def __init__(
        self,
        roles: ExecutionRoles,
        *,
        access_key_id: str | None,
        secret_access_key: str | None,
        is_secure: bool,
    ) -> None:
        self._roles = roles
        self._keys = access_key_id, secret_access_key
        self._is_secure = is_secure
        self._remembered = _Remembered(roles, self._find)

    async def acting(self, principal: Principal) -> Acting:
        return await self._remembered.acting(principal)

    async def _find(self, principal: Principal) -> Acting:
        role = await _role_of(self._roles, principal)
        identity, session = await self._roles.policies(role)
        return _WithOwnKeys(self._keys, _caller(principal, role), identity, session, self._is_secure)


@dataclass(frozen=True, slots=True)
class _WithOwnKeys:
    keys: tuple[str | None, str | None]
    caller: policy.Caller
    identity: list[policy.Policy]
    session: list[policy.Policy] | None
    is_secure: bool

    @property
    def key(self) -> Hashable:
        return self.keys

    @property
    def is_role(self) -> bool:
        return False

    async def credentials(self) -> Credentials:
        access_key_id, secret = self.keys
        return Credentials(access_key_id=access_key_id or "", secret_access_key=secret or "")

    def authorize(self, action: str, resource: str, context: Mapping[str, str]) -> None:
        if not all(self.keys):
            raise ObjectError(
                "there are no credentials for the S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the "
                "environment of the server"
            )
        now = datetime.now(UTC)
        known = {
            "aws:CurrentTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "aws:EpochTime": str(int(now.timestamp())),
            "aws:SecureTransport": "true" if self.is_secure else "false",
        }
        decision = policy.evaluate(
            policy.Request(action, resource, self.caller, {**known, **context}),
            identity=self.identity,
            session=self.session,
            resource_account_id=self.caller.account_id,
        )
        if not decision.allowed:
            bucket, _, key = resource.removeprefix("arn:aws:s3:::").partition("/")
            raise access_denied(ObjectUrl(bucket, key), _VERBS[action])


async def _role_of(roles: ExecutionRoles, principal: Principal) -> Role | None:
    return await roles.check(
        principal.account_id,
        principal.role_arn,
        source_arn=principal.source_arn,
        must_exist=principal.role_exists,
    )


def _caller(principal: Principal, role: Role | None) -> policy.Caller:
    if role is None:
        arn = rules.stand_in_arn(principal.account_id, principal.role_arn)
        identity_id, entity_arn = principal.account_id, rules.root_arn(principal.account_id)
    else:
        arn, identity_id, entity_arn = assumed_role_arn(role, rules.SESSION_NAME), role.identity_id, role.arn
    return caller_of(
        arn=arn,
        account_id=principal.account_id,
        user_id=f"{identity_id}:{rules.SESSION_NAME}",
        entity_arn=entity_arn,
        tags=role.tags if role is not None else {},
    )
