"""SimulatePrincipalPolicy and SimulateCustomPolicy: what the policy engine would decide, and by which statement; and
GetContextKeysForPrincipalPolicy and GetContextKeysForCustomPolicy: what they have to be told for that.

What ContextEntries say of the caller counts over what follows from who it is.

A policy that matched is called as IAM calls it: `PolicyInputList.1`, an attached one by its name, an inline one
`user_<user>_<policy>` or `role_<role>_<policy>`. Its type is one of the model's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from moorage.auth import policy
from moorage.auth.aws_managed import AWS_MANAGED
from moorage.auth.identities import Identity, Role, User
from moorage.auth.policy import CallerKind, Decision, PolicyError, PolicyKind, StatementId
from moorage.auth.policy_documents import context_keys
from moorage.controller.iam.base import Call, Members, Output, page
from moorage.controller.iam.positions import Position, statement_positions
from moorage.controller.permissions import compiled
from moorage.controller.query import Handler
from moorage.errors import InvalidInput, NoSuchEntity

_BOUNDARY = "PermissionsBoundaryPolicyInputList.1"
_RESOURCE = "ResourcePolicy"


@dataclass(frozen=True, slots=True)
class _Origin:
    """What is told of a policy that decided."""

    id: str
    type: str
    document: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """What stays the same for all the requests of one simulation. `origins` are by the policies' names, `spelling`
    are the policies' context keys by their lower case."""

    caller: policy.Caller
    identity: Sequence[policy.Policy]
    boundary: policy.Policy | None
    resource: policy.Policy | None
    resource_account_id: str
    context: policy.Context
    origins: Mapping[str, _Origin]
    spelling: Mapping[str, str]


async def simulate_custom_policy(call: Call, members: Members) -> Output:
    await call.check("*")
    arn = members.get("CallerArn", f"arn:aws:iam::{call.account_id}:user/simulated")
    caller = _caller(arn, None)
    known = _known_of(caller, None) if "CallerArn" in members else {}
    return _simulate(_scene(members, caller, known, [], {}), members)


async def simulate_principal_policy(call: Call, members: Members) -> Output:
    if "PolicyExclusionList" in members:
        raise InvalidInput("This server does not have PolicyExclusionList.")
    found = await _source(call, members)
    own = await call.store.documents(found)
    arn = members.get("CallerArn", found.arn)
    identity = found if arn == found.arn else None
    caller = _caller(arn, identity)
    origins = {name: _origin(found, name, document) for name, document in own.items()}
    scene = _scene(members, caller, _known_of(caller, identity), compiled(own), origins)
    return _simulate(scene, members)


async def context_keys_of_custom_policies(call: Call, members: Members) -> Output:
    await call.check("*")
    return _context_keys([], members["PolicyInputList"])


async def context_keys_of_principal(call: Call, members: Members) -> Output:
    found = await _source(call, members)
    own = await call.store.documents(found)
    return _context_keys(own.values(), members.get("PolicyInputList", ()))


def _context_keys(own: Iterable[str], given: Sequence[str]) -> Output:
    for number, document in enumerate(given, 1):
        _given(document, name=f"PolicyInputList.{number}")
    return {"ContextKeyNames": list(_spelling([*own, *given]).values())}


def _spelling(documents: Iterable[str]) -> dict[str, str]:
    """The context keys of some policies: in lower case, and as they are spelt where they come first."""
    found: dict[str, str] = {}
    for document in documents:
        found = found | {key: name for key, name in context_keys(document).items() if key not in found}
    return found


async def _source(call: Call, members: Members) -> Identity:
    """The user or role that PolicySourceArn names. Raises `NoSuchEntity`, `InvalidInput`."""
    arn = members["PolicySourceArn"]
    kind, name = _named(arn)
    found: Identity
    if kind is User:
        found = await call.identity(User, {"UserName": name})
    else:
        found = await call.identity(Role, {"RoleName": name})
    if found.arn != arn:
        raise NoSuchEntity(f"The entity {arn} cannot be found.")
    return found


def _origin(identity: Identity, name: str, document: str) -> _Origin:
    own_name = name.rpartition("/")[2]
    if name in AWS_MANAGED:
        return _Origin(own_name, "aws-managed", document)
    if name.startswith(f"{identity.arn}/policy/"):
        return _Origin(f"{identity.kind}_{identity.name}_{own_name}", identity.kind, document)
    return _Origin(own_name, "user-managed", document)


def _named(arn: str) -> tuple[type[User] | type[Role], str]:
    resource = arn.split(":", 5)[-1]
    kind, _, name = resource.partition("/")
    if kind not in ("user", "role") or not name:
        raise InvalidInput(f"Invalid Entity Arn: {arn} does not clearly define entity type and name.")
    return (User if kind == "user" else Role), name.rpartition("/")[2]


def _caller(arn: str, identity: Identity | None) -> policy.Caller:
    parts = arn.split(":", 5)
    if len(parts) < 6:
        raise InvalidInput(f"Invalid Entity Arn: {arn}")
    is_role = isinstance(identity, Role)
    return policy.Caller(
        arn=arn,
        account_id=parts[4],
        kind=CallerKind.ASSUMED_ROLE if is_role else CallerKind.USER,
        user_id=identity.identity_id if identity else "AIDASIMULATED",
        user_name=None if is_role else arn.rpartition("/")[2],
        role_name=identity.name if identity and is_role else None,
        tags=identity.tags if identity else {},
        entity_arn=identity.arn if identity and is_role else None,
    )


def _known_of(caller: policy.Caller, identity: Identity | None) -> policy.Context:
    """What follows from the caller. Of one that is only an ARN, neither its id nor its tags are known."""
    context = policy.caller_context(caller)
    if identity is None:
        del context["aws:userid"]
    return context


def _scene(
    members: Members,
    caller: policy.Caller,
    known: policy.Context,
    own: Sequence[policy.Policy],
    own_origins: Mapping[str, _Origin],
) -> _Scene:
    boundaries = members.get("PermissionsBoundaryPolicyInputList", ())
    resource = members.get("ResourcePolicy")
    given = {
        f"PolicyInputList.{number}": document
        for number, document in enumerate(members.get("PolicyInputList", ()), 1)
    }
    origins = {name: _Origin(name, "none", document) for name, document in given.items()}
    if boundaries:
        origins[_BOUNDARY] = _Origin(_BOUNDARY, "none", boundaries[0])
    if resource:
        origins[_RESOURCE] = _Origin(_RESOURCE, "resource", resource)
    entries = {
        entry["ContextKeyName"]: _context_value(entry)
        for entry in members.get("ContextEntries", ())
        if "ContextKeyName" in entry
    }
    origins = {**own_origins, **origins}
    owner = members.get("ResourceOwner", caller.account_id).removeprefix("arn:aws:iam::")[:12]
    known = {**known, "aws:ResourceAccount": owner, "s3:ResourceAccount": owner}
    return _Scene(
        caller=caller,
        context={key.lower(): value for key, value in (*known.items(), *entries.items())},
        identity=[*own, *(_given(document, name=name) for name, document in given.items())],
        boundary=_given(boundaries[0], name=_BOUNDARY) if boundaries else None,
        resource=_given(resource, PolicyKind.RESOURCE, name=_RESOURCE) if resource else None,
        resource_account_id=owner,
        origins=origins,
        spelling=_spelling(origin.document for origin in origins.values()),
    )


def _given(document: str, kind: PolicyKind = PolicyKind.IDENTITY, *, name: str) -> policy.Policy:
    """A policy of the request, which may name any condition key. Simulations have no error of their own for malformed
    ones.

    Raises:
        InvalidInput: it is malformed.
    """
    try:
        return policy.compile_policy(document, name=name, kind=kind)
    except PolicyError as error:
        raise InvalidInput(str(error)) from error


def _context_value(entry: Members) -> str | tuple[str, ...]:
    values = tuple(entry.get("ContextKeyValues", ()))
    is_list = entry.get("ContextKeyType", "string").endswith("List")
    return values if is_list or len(values) != 1 else values[0]


def _simulate(scene: _Scene, members: Members) -> Output:
    pairs = [
        (action, resource)
        for action in members["ActionNames"]
        for resource in members.get("ResourceArns") or ["*"]
    ]
    numbered = [(f"{number:06}", pair) for number, pair in enumerate(pairs)]
    shown, more = page(numbered, members, lambda each: each[0])
    return {"EvaluationResults": [_result(scene, *pair) for _, pair in shown], **more}


def _result(scene: _Scene, action: str, resource: str) -> Output:
    decision = policy.evaluate(
        policy.Request(action, resource, scene.caller, principal_context=scene.context),
        identity=scene.identity,
        boundary=scene.boundary,
        resource=scene.resource,
        resource_account_id=scene.resource_account_id,
    )
    return {
        "EvalActionName": action,
        "EvalResourceName": resource,
        "EvalDecision": _word(decision),
        "MatchedStatements": [_matched(scene, decision.statement)] if decision.statement else [],
        "MissingContextValues": _missing(scene, action),
    }


def _matched(scene: _Scene, statement: StatementId) -> Output:
    origin = scene.origins[statement.policy]
    start, end = statement_positions(origin.document)[statement.index - 1]
    return {
        "SourcePolicyId": origin.id,
        "SourcePolicyType": origin.type,
        "StartPosition": _position(start),
        "EndPosition": _position(end),
    }


def _position(position: Position) -> Output:
    return {"Line": position.line, "Column": position.column}


def _word(decision: Decision) -> str:
    if decision.allowed:
        return "allowed"
    return "explicitDeny" if decision.explicit else "implicitDeny"


def _missing(scene: _Scene, action: str) -> list[str]:
    """Context keys that the policies ask of this action and that were not given."""
    policies = [*scene.identity, *(each for each in (scene.boundary, scene.resource) if each)]
    wanted = {
        key
        for each in policies
        for statement in each.statements
        if statement.covers(action.lower())
        for key in statement.keys
    }
    return sorted(scene.spelling[key] for key in wanted - scene.context.keys())


OPERATIONS: Mapping[str, Handler[Call]] = {
    "GetContextKeysForCustomPolicy": context_keys_of_custom_policies,
    "GetContextKeysForPrincipalPolicy": context_keys_of_principal,
    "SimulateCustomPolicy": simulate_custom_policy,
    "SimulatePrincipalPolicy": simulate_principal_policy,
}
