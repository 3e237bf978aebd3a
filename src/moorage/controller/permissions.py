"""Who may do what with identities: decided here, where it is known which identity a request is about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from moorage.auth import policy
from moorage.auth.execution_roles import WHOLE_ACCOUNT
from moorage.auth.identities import Identity, Role, User
from moorage.auth.policy import PolicyKind
from moorage.auth.policy_principals import caller_of, stands_for_account
from moorage.controller import auditing
from moorage.errors import AccessDeniedException, NoSuchEntity, UnrecognizedClientException
from moorage.storage.identities import IdentityStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Requester:
    """Who calls, as the gateway has verified it.

    Of temporary credentials come, as in `moorage.auth.sessions.Session`, `identity_arn` (of others it is the
    principal itself) and what begins with `session_`. `context` are the condition keys that the gateway knows, such
    as `aws:SourceIp`.
    """

    account_id: str
    principal_arn: str
    user_id: str
    identity_arn: str = ""
    is_session: bool = False
    session_policy: str | None = None
    session_policy_arns: Sequence[str] = ()
    session_tags: Mapping[str, str] = field(default_factory=dict)
    session_issued: str | None = None
    context: policy.Context = field(default_factory=dict)

    @property
    def is_root(self) -> bool:
        return not self.stands_for_account and (self.identity_arn or self.principal_arn).endswith(":root")

    @property
    def stands_for_account(self) -> bool:
        """Whether it is the session of a role that does not exist; see `moorage.auth.execution_roles`."""
        return stands_for_account(self.principal_arn, self.identity_arn)

    @property
    def is_role(self) -> bool:
        return ":assumed-role/" in self.principal_arn

    @property
    def identity_name(self) -> str:
        """Of the user or role, without its path."""
        return (self.identity_arn or self.principal_arn).rpartition("/")[2]


class Permissions:
    def __init__(self, store: IdentityStore) -> None:
        self._store = store

    async def check(
        self,
        requester: Requester,
        action: str,
        resource: str,
        *,
        context: policy.Context | None = None,
        resource_policy: policy.Policy | None = None,
        resource_account_id: str | None = None,
    ) -> None:
        """Return if the request is allowed.

        Raises:
            AccessDeniedException: it is not; the message says which kind of policy refuses it.
            UnrecognizedClientException: the requester's user or role is no more.
        """
        auditing.note_resource(resource)
        identity = await self._identity(requester)
        request = policy.Request(
            action=action,
            resource=resource,
            principal=caller(requester, identity),
            context={**requester.context, **(context or {})},
        )
        decision = policy.evaluate_discreetly(
            request,
            identity=[WHOLE_ACCOUNT] if requester.stands_for_account else await self._policies(identity),
            session=await self._session_policies(requester),
            resource=resource_policy,
            resource_account_id=resource_account_id or requester.account_id,
        )
        if not decision.allowed:
            raise AccessDeniedException(policy.denial_message(request, decision))

    async def _identity(self, requester: Requester) -> Identity | None:
        """The user or role; None for a root, and for a role that does not exist.

        An identity made anew under the same name is another one.
        """
        if requester.is_root or requester.stands_for_account:
            return None
        kind: type[User] | type[Role] = Role if requester.is_role else User
        try:
            found = await self._store.get(kind, requester.account_id, requester.identity_name)
        except NoSuchEntity:
            raise _unknown() from None
        if found.identity_id != requester.user_id.partition(":")[0]:
            raise _unknown()
        return found

    async def _policies(self, identity: Identity | None) -> list[policy.Policy]:
        if identity is None:
            return []
        return compiled(await self._store.documents(identity))

    async def _session_policies(self, requester: Requester) -> list[policy.Policy] | None:
        if requester.session_policy is None and not requester.session_policy_arns:
            return None
        documents = {}
        if requester.session_policy is not None:
            documents["session policy"] = requester.session_policy
        for arn in requester.session_policy_arns:
            try:
                documents[arn] = (await self._store.policy(requester.account_id, arn)).document
            except NoSuchEntity:
                continue  # it was deleted since; what it allowed is not allowed any more
        return compiled(documents)


def _unknown() -> UnrecognizedClientException:
    return UnrecognizedClientException("The security token included in the request is invalid.")


def compiled(documents: Mapping[str, str]) -> list[policy.Policy]:
    """Identity-based policies that were checked when they were stored."""
    return [_compiled(document, name) for name, document in documents.items()]


@lru_cache(maxsize=256)
def _compiled(document: str, name: str) -> policy.Policy:
    return policy.compile_policy(document, name=name, kind=PolicyKind.IDENTITY)


def caller(requester: Requester, identity: Identity | None) -> policy.Caller:
    """The requester as policies see it; a session's tags count over those of its role."""
    return caller_of(
        arn=requester.principal_arn,
        account_id=requester.account_id,
        user_id=requester.user_id,
        entity_arn=requester.identity_arn or requester.principal_arn,
        tags={**(identity.tags if identity else {}), **requester.session_tags},
        token_issued=requester.session_issued,
    )
