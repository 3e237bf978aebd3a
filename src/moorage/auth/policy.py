"""IAM policies: compiled from JSON, and evaluated for one request. Nothing here reads a clock, a file or a socket.

How a request is decided, after "Policy evaluation logic" in the IAM User Guide:

1. A Deny statement that applies, in any policy of any type, decides.
2. The account's root user may do everything in its own account.
3. Within one account an Allow in an identity-based **or** the resource-based policy is needed. What the
   identity-based policies allow must be allowed by the permissions boundary and the session policies too, where
   there are any. What the resource-based policy allows depends on whom it names: the caller itself (its user ARN,
   its session ARN, or everyone), and nothing else limits that; the role or user behind the session, and boundary
   and session policies limit that; the account, and that only delegates to its identity-based policies.
4. Across accounts the identity-based side **and** the resource-based policy must allow.
5. A role trust policy must always allow, also within the account.

The quotations below are from the pages they name, all in the IAM User Guide.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from moorage.auth.policy_documents import (
    Policy,
    PolicyError,
    PolicyKind,
    Question,
    StatementId,
    compile_policy,
)
from moorage.auth.policy_principals import (
    Caller,
    CallerKind,
    Level,
    caller_context,
    is_derived,
    owner_context,
)

__all__ = [
    "Caller",
    "CallerKind",
    "Context",
    "Decision",
    "Policy",
    "PolicyError",
    "PolicyKind",
    "Request",
    "Source",
    "StatementId",
    "caller_context",
    "compile_policy",
    "denial_message",
    "evaluate",
    "evaluate_discreetly",
]

Context = Mapping[str, str | tuple[str, ...]]
"""Context keys and their values. A multivalued key, such as `aws:TagKeys`, has a tuple, empty if need be."""


@dataclass(frozen=True, slots=True)
class Request:
    """`context` is what the service knows of the request. The keys about the principal and about the resource's owner
    are derived, and those in `context` do not count. Only a simulation may say what they are, by
    `principal_context`."""

    action: str
    resource: str
    principal: Caller
    context: Context = field(default_factory=dict)
    principal_context: Context | None = None


class Source(Enum):
    """The type of policy that decided: in the words after "because no …", and after "with an explicit deny in …"."""

    IDENTITY = ("identity-based policy", "an identity-based policy")
    BOUNDARY = ("permissions boundary", "a permissions boundary")
    SESSION = ("session policy", "a session policy")
    RESOURCE = ("resource-based policy", "a resource-based policy")
    TRUST = ("role trust policy", "the role trust policy")


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request is allowed.

    `explicit` is true when a Deny statement decided. `statement` is the one that decided, None for an implicit deny
    and for what the root user may do anyway. `source` is the type of policy that decided, or that should have
    allowed. `why` is a sentence for people.
    """

    allowed: bool
    explicit: bool
    source: Source | None
    statement: StatementId | None
    why: str


@dataclass(frozen=True, slots=True)
class _Policies:
    """All that applies to one request, by type. `session` is None when the session was made without policies."""

    identity: Sequence[Policy]
    boundary: Policy | None
    session: Sequence[Policy] | None
    resource: Policy | None

    def by_source(self) -> Iterable[tuple[Source, Policy]]:
        yield from ((Source.IDENTITY, each) for each in self.identity)
        if self.boundary is not None:
            yield Source.BOUNDARY, self.boundary
        yield from ((Source.SESSION, each) for each in self.session or ())
        if self.resource is not None:
            yield self.resource_source, self.resource

    @property
    def resource_source(self) -> Source:
        trusts = self.resource is not None and self.resource.kind is PolicyKind.TRUST
        return Source.TRUST if trusts else Source.RESOURCE


def evaluate(
    request: Request,
    *,
    identity: Sequence[Policy],
    boundary: Policy | None = None,
    session: Sequence[Policy] | None = None,
    resource: Policy | None = None,
    resource_account_id: str,
) -> Decision:
    """Decide a request. `identity` are the policies of the user with its groups, or of the role; `session` those that
    were passed when the session was made, None if there were none (a session made with policies that allow nothing
    may do nothing); `resource` the resource's own policy, or the trust policy of the role to be assumed."""
    caller = request.principal
    facts: dict[str, str | tuple[str, ...]] = {**owner_context(request.resource, resource_account_id)}
    facts.update(
        (key, value)
        for key, value in ((key.lower(), value) for key, value in request.context.items())
        if not is_derived(key)
    )
    about_caller = request.principal_context
    if about_caller is None:
        about_caller = caller_context(caller)
    facts.update((key.lower(), value) for key, value in about_caller.items())
    question = Question(request.action.lower(), request.resource, caller, facts)
    policies = _Policies(identity, boundary, session, resource)
    denied = _explicit_deny(question, policies)
    if denied is not None:
        return denied
    granted = _Granted(*_resource_allow(question, resource))
    if caller.kind is CallerKind.SERVICE:
        return _decide_for_service(granted, policies)
    if caller.account_id == resource_account_id:
        return _decide_within_account(question, policies, granted)
    return _decide_across_accounts(question, policies, granted)


def evaluate_discreetly(
    request: Request,
    *,
    identity: Sequence[Policy],
    boundary: Policy | None = None,
    session: Sequence[Policy] | None = None,
    resource: Policy | None = None,
    resource_account_id: str,
) -> Decision:
    """`evaluate`, for an answer that tells the caller why. A caller of another account is refused with the same
    grounds whatever the resource's policy and its tags say, and so whether or not there is such a resource."""
    decision = evaluate(
        request,
        identity=identity,
        boundary=boundary,
        session=session,
        resource=resource,
        resource_account_id=resource_account_id,
    )
    owner_asks = request.principal.account_id == resource_account_id
    trusts = resource is not None and resource.kind is PolicyKind.TRUST
    if decision.allowed or owner_asks or trusts:
        return decision
    untagged = {key: value for key, value in request.context.items() if ":resourcetag/" not in key.lower()}
    return evaluate(
        replace(request, context=untagged),
        identity=identity,
        boundary=boundary,
        session=session,
        resource_account_id=resource_account_id,
    )


def denial_message(request: Request, decision: Decision) -> str:
    """What AWS tells the caller of a request that is not allowed ("Troubleshoot access denied error messages")."""
    refused = (
        f"User: {request.principal.arn} is not authorized to perform: {request.action} "
        f"on resource: {request.resource}"
    )
    missing, denying = (decision.source or Source.IDENTITY).value
    if decision.explicit:
        return f"{refused} with an explicit deny in {denying}"
    return f"{refused} because no {missing} allows the {request.action} action"


@dataclass(frozen=True, slots=True)
class _Granted:
    """What the resource-based policy allows: the statement that names the caller most precisely, and how."""

    statement: StatementId | None
    level: Level


def _explicit_deny(question: Question, policies: _Policies) -> Decision | None:
    """ "An explicit deny in any policy overrides any allows." """
    for source, policy in policies.by_source():
        for statement in policy.denies:
            if statement.applies(question):
                why = f"{_capital(statement.id)} denies it explicitly ({source.value[0]})."
                return Decision(False, True, source, statement.id, why)
    return None


def _resource_allow(question: Question, policy: Policy | None) -> tuple[StatementId | None, Level]:
    best: tuple[StatementId | None, Level] = (None, Level.NONE)
    for statement in policy.allows if policy is not None else ():
        level = statement.level(question.caller)
        if level > best[1] and statement.applies(question):
            best = (statement.id, level)
    return best


def _decide_for_service(granted: _Granted, policies: _Policies) -> Decision:
    """A service acting for itself has no identity-based policies: the resource's alone decides."""
    source = policies.resource_source
    return _allow(source, granted.statement) if granted.level is Level.DIRECT else _implicit_deny(source)


def _decide_within_account(question: Question, policies: _Policies, granted: _Granted) -> Decision:
    source = policies.resource_source
    if source is Source.TRUST and granted.level is Level.NONE:
        # "IAM role trust policies and KMS key policies … must explicitly allow access for principals."
        return _implicit_deny(source)
    if question.caller.kind is CallerKind.ROOT:
        return Decision(True, False, None, None, "The root user may do everything in its own account.")
    if granted.level is Level.DIRECT:
        # "If a resource-based policy grants permission directly to the IAM user or the session principal …, then an
        # implicit deny in an identity-based policy, a permissions boundary, or session policy does not impact the
        # final decision." Of `*`: "For IAM users and role principals within your account, no other permissions are
        # required."
        return _allow(source, granted.statement)
    if granted.level is Level.ENTITY:
        # "Resource-based policies that grant permissions to an IAM role ARN are limited by an implicit deny in a
        # permissions boundary or session policy."
        return _limit(question, policies) or _allow(source, granted.statement)
    return _decide_by_identity(question, policies)


def _decide_across_accounts(question: Question, policies: _Policies, granted: _Granted) -> Decision:
    """ "The request is allowed only if both evaluations return a decision of Allow" ("Cross-account policy evaluation
    logic"). There a resource-based policy that names a session does not lift its limits: that is "within the same
    account"."""
    if question.caller.confined:
        return _implicit_deny(Source.SESSION)
    if question.caller.kind is not CallerKind.ROOT:
        own_side = _decide_by_identity(question, policies)
        if not own_side.allowed:
            return own_side
    source = policies.resource_source
    return _implicit_deny(source) if granted.level is Level.NONE else _allow(source, granted.statement)


def _decide_by_identity(question: Question, policies: _Policies) -> Decision:
    statement = _first_allow(question, policies.identity)
    if statement is None:
        return _implicit_deny(Source.IDENTITY)
    return _limit(question, policies) or _allow(Source.IDENTITY, statement)


def _limit(question: Question, policies: _Policies) -> Decision | None:
    """The implicit deny of a boundary or of session policies. "Session policies … If there is no session policy, the
    code checks whether the principal is a role session": a federated user without any may do nothing."""
    if policies.boundary is not None and _first_allow(question, (policies.boundary,)) is None:
        return _implicit_deny(Source.BOUNDARY)
    session = policies.session
    if session is None and question.caller.kind is CallerKind.FEDERATED_USER:
        session = ()
    if session is not None and _first_allow(question, session) is None:
        return _implicit_deny(Source.SESSION)
    return None


def _first_allow(question: Question, policies: Iterable[Policy]) -> StatementId | None:
    for policy in policies:
        for statement in policy.allows:
            if statement.applies(question):
                return statement.id
    return None


def _allow(source: Source, statement: StatementId | None) -> Decision:
    return Decision(
        True, False, source, statement, f"{_capital(statement or source)} allows it ({source.value[0]})."
    )


def _implicit_deny(source: Source) -> Decision:
    return Decision(False, False, source, None, f"No {source.value[0]} allows it.")


def _capital(words: object) -> str:
    text = str(words)
    return text[:1].upper() + text[1:]
