"""Policy documents: the grammar, and the statements that come of it. Evaluation is in `moorage.auth.policy`.

The grammar is that of "Grammar of the IAM JSON policy language" in the IAM User Guide, where the other pages named
here are too.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from moorage.auth import condition_keys
from moorage.auth.arns import Facts, Pattern, parse_template, split_arn, variable_names, variables_in
from moorage.auth.policy_conditions import AnyCondition, Unfilled, compile_conditions
from moorage.auth.policy_principals import Caller, Level, Principals, is_derived, parse_principals


class PolicyError(ValueError):
    """A document that is no policy; the text names the statement and the element (`MalformedPolicyDocument`)."""


class PolicyKind(Enum):
    """What a document is for: an identity (also a boundary or a session), a resource, or a role's trust."""

    IDENTITY = "identity-based policy"
    RESOURCE = "resource-based policy"
    TRUST = "role trust policy"


@dataclass(frozen=True, slots=True)
class StatementId:
    """A statement in its policy. `index` counts from 1."""

    policy: str
    index: int
    sid: str | None

    def __str__(self) -> str:
        return f"statement {self.sid or self.index} of {self.policy}"


@dataclass(frozen=True, slots=True)
class Question:
    """A request made ready: the action in lower case, all context keys too."""

    action: str
    resource: str
    caller: Caller
    facts: Facts


@dataclass(frozen=True, slots=True)
class UnfilledPattern:
    """A resource with a variable that this server never fills: see `moorage.auth.policy_conditions.Unfilled`."""

    pattern: "Pattern | UnfilledPattern"
    unfilled: frozenset[str]
    otherwise: bool

    @property
    def variables(self) -> frozenset[str]:
        return self.pattern.variables

    def matches(self, value: str, facts: Facts) -> bool:
        return self.pattern.matches(value, facts) if self.unfilled <= facts.keys() else self.otherwise


@dataclass(frozen=True, slots=True)
class Statement:
    """`keys` are the context keys that its meaning depends on, `request_keys` those that follow neither from the
    caller nor from the resource. `unfilled` are those of them that this server never fills, if it matters: such a
    statement denies if it is a Deny, and allows nothing if it is an Allow."""

    id: StatementId
    denies: bool
    actions: frozenset[str]
    action_patterns: tuple[Pattern, ...]
    not_action: bool
    resources: tuple[Pattern | UnfilledPattern, ...]
    not_resource: bool
    principals: Principals | None
    conditions: tuple[AnyCondition, ...]
    keys: frozenset[str]
    request_keys: frozenset[str]
    unfilled: frozenset[str] = frozenset()

    def covers(self, action: str) -> bool:
        """Whether it is about this action, in lower case: "The prefix and the action name are case insensitive"."""
        listed = action in self.actions or any(each.matches(action, {}) for each in self.action_patterns)
        return listed != self.not_action

    def level(self, caller: Caller) -> Level:
        return self.principals.level(caller) if self.principals is not None else Level.NONE

    def applies(self, question: Question) -> bool:
        facts = question.facts
        return (
            self.covers(question.action)
            and (self.principals is None or self.level(question.caller) is not Level.NONE)
            and any(each.matches(question.resource, facts) for each in self.resources) != self.not_resource
            and all(condition.holds(facts) for condition in self.conditions)
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """A compiled policy: immutable, safe to share."""

    name: str
    kind: PolicyKind
    statements: tuple[Statement, ...]
    denies: tuple[Statement, ...]
    allows: tuple[Statement, ...]
    version: str


# --- From JSON -----------------------------------------------------------------------------------------

_VERSIONS = ("2008-10-17", "2012-10-17")
"""Without a Version it is the first ("IAM JSON policy elements: Version")."""

_POLICY_ELEMENTS = frozenset({"Version", "Id", "Statement"})
_STATEMENT_ELEMENTS = frozenset(
    {
        "Sid",
        "Effect",
        "Action",
        "NotAction",
        "Resource",
        "NotResource",
        "Principal",
        "NotPrincipal",
        "Condition",
    }
)
_ACTION = re.compile(r"\*|\*:\*|[A-Za-z0-9-]+:[A-Za-z0-9*?._-]+")
_IAM_SID = re.compile(r"[A-Za-z0-9]*")


def compile_policy(
    document: str | Mapping[str, object], *, name: str, kind: PolicyKind, max_size: int | None = None
) -> Policy:
    """Check a document and make it ready to evaluate.

    `name` is for people: decisions tell it. `max_size` is the limit of what the policy is attached to, in characters;
    "policy size calculations do not include white space characters".

    Raises:
        PolicyError: it breaks a rule of the grammar.
    """
    policy = _load(document, max_size)
    _check_elements(policy, _POLICY_ELEMENTS, "The policy")
    version = policy.get("Version", _VERSIONS[0])
    if not isinstance(version, str) or version not in _VERSIONS:
        raise PolicyError("Version: must be 2012-10-17 or 2008-10-17.")
    if "Id" in policy and kind is PolicyKind.IDENTITY:
        raise PolicyError("Id: must not be included in an identity-based policy.")
    if not isinstance(policy.get("Id", ""), str):
        raise PolicyError("Id: must be a string.")
    items = policy.get("Statement")
    items = items if isinstance(items, list) else [items]
    if not items:
        raise PolicyError("Statement: a policy must have at least one statement.")
    statements = tuple(
        _StatementCompiler(item, name, index, kind, version == "2012-10-17").compile()
        for index, item in enumerate(items, 1)
    )
    _check_sids(statements)
    return Policy(
        name,
        kind,
        statements,
        tuple(each for each in statements if each.denies),
        tuple(each for each in statements if not each.denies),
        version,
    )


def check_condition_keys(policy: Policy, document: str | Mapping[str, object]) -> None:
    """For a policy that is to be stored: its conditions and variables can be judged.

    Raises:
        PolicyError: a statement that can matter here names a condition key that this server never fills; the text
            has those that it may name.
    """
    for statement in policy.statements:
        if statement.unfilled:
            text = document if isinstance(document, str) else json.dumps(document)
            spelling = context_keys(text)
            named = ", ".join(sorted(spelling.get(key, key) for key in statement.unfilled))
            number = statement.id.index
            where = f"Statement {number}" + (f" ({statement.id.sid})" if statement.id.sid else "")
            known = ", ".join(condition_keys.filled_for(statement.covers))
            raise PolicyError(
                f"{where}: this server never fills the condition key {named}, so that the statement would not do "
                f"what it says. Of requests for what the statement covers it fills: {known}."
            )


def context_keys(document: str) -> dict[str, str]:
    """The context keys that a valid policy refers to, in conditions and as variables: in lower case, and as they are
    spelt where they come first. In the order in which IAM tells them: those of resources before those of
    conditions."""
    policy = json.loads(document)
    found: dict[str, str] = {}

    def add(*keys: str) -> None:
        for key in keys:
            found.setdefault(key.lower(), key)

    def add_variables(texts: object) -> None:
        if policy.get("Version") == _VERSIONS[1]:
            add(*(key for text in _listed(texts) if isinstance(text, str) for key in variable_names(text)))

    for statement in _listed(policy["Statement"]):
        add_variables(statement.get("Resource", []))
        add_variables(statement.get("NotResource", []))
        for tests in statement.get("Condition", {}).values():
            for key, values in tests.items():
                add(key)
                add_variables(values)
    return found


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _load(document: str | Mapping[str, object], max_size: int | None) -> Mapping[str, object]:
    try:
        text = document if isinstance(document, str) else json.dumps(document)
        policy = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except PolicyError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise PolicyError(f"The policy is not valid JSON: {error}") from None
    if max_size is not None and sum(map(len, text.split())) > max_size:
        raise PolicyError(f"The policy is longer than {max_size} characters, not counting white space.")
    if not isinstance(policy, dict):
        raise PolicyError("The policy must be a JSON object.")
    return policy


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """ "Individual elements must not contain multiple instances of the same key." """
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [key for key, _ in pairs]
        twice = next(key for key in names if names.count(key) > 1)
        raise PolicyError(f"{twice}: the same element has it more than once.")
    return found


def _refuse_constant(text: str) -> object:
    raise PolicyError(f"The policy is not valid JSON: {text} is not a value.")


def _check_elements(item: Mapping[str, object], known: frozenset[str], where: str) -> None:
    unknown = next((key for key in item if key not in known), None)
    if unknown is not None:
        raise PolicyError(f"{where} has an unknown element: {unknown}.")


def _check_sids(statements: Iterable[Statement]) -> None:
    """ "The Sid value must be unique within a JSON policy" ("IAM JSON policy elements: Sid")."""
    seen: set[str] = set()
    for statement in statements:
        sid = statement.id.sid
        if sid is not None and sid in seen:
            raise PolicyError(
                f"Statement {statement.id.index}, Sid: {sid!r} is the Sid of another statement too."
            )
        if sid is not None:
            seen.add(sid)


class _StatementCompiler:
    """One statement on its way from JSON."""

    def __init__(self, item: object, policy: str, index: int, kind: PolicyKind, variables: bool) -> None:
        self._where = f"Statement {index}"
        if not isinstance(item, dict):
            raise PolicyError(f"{self._where}: must be an object.")
        self._item: Mapping[str, object] = item
        self._policy, self._index, self._kind, self._variables = policy, index, kind, variables

    def compile(self) -> Statement:
        _check_elements(self._item, _STATEMENT_ELEMENTS, self._where)
        sid = self._sid()
        if sid:
            self._where += f" ({sid})"
        effect = self._item.get("Effect")
        if effect not in ("Allow", "Deny"):
            raise self._error("Effect", "must be Allow or Deny")
        actions, not_action = self._actions()
        resources, not_resource = self._resources()
        conditions = self._conditions()
        keys = frozenset().union(*(each.keys for each in conditions), *(each.variables for each in resources))
        statement = Statement(
            id=StatementId(self._policy, self._index, sid),
            denies=effect == "Deny",
            actions=frozenset(each for each in actions if not _has_wildcard(each)),
            action_patterns=tuple(
                Pattern(parse_template(each, variables=False)) for each in actions if _has_wildcard(each)
            ),
            not_action=not_action,
            resources=resources,
            not_resource=not_resource,
            principals=self._principals(),
            conditions=conditions,
            keys=keys,
            request_keys=frozenset(key for key in keys if not is_derived(key)),
        )
        unfilled = condition_keys.unknown_of(keys)
        if not unfilled or not condition_keys.can_matter(statement.covers):
            return statement
        return _judged(statement, unfilled)

    def _error(self, element: str, problem: object) -> PolicyError:
        return PolicyError(f"{self._where}, {element}: {problem}.")

    def _one_of(self, element: str) -> tuple[str, bool] | None:
        """Which of an element and its Not… twin the statement has, and whether that is the twin."""
        twin = f"Not{element}"
        if element in self._item and twin in self._item:
            raise self._error(element, f"cannot be together with {twin} in one statement")
        if twin in self._item:
            return twin, True
        return (element, False) if element in self._item else None

    def _strings(self, element: str, value: object) -> list[str]:
        values = value if isinstance(value, list) else [value]
        texts = [each for each in values if isinstance(each, str)]
        if len(texts) != len(values):
            raise self._error(element, "must be a string or a list of strings")
        return texts

    def _sid(self) -> str | None:
        sid = self._item.get("Sid", "")
        if not isinstance(sid, str):
            raise self._error("Sid", "must be a string")
        if self._kind is not PolicyKind.RESOURCE and not _IAM_SID.fullmatch(sid):
            raise self._error("Sid", f"{sid!r} must be of the letters A-Z and a-z and digits only")
        return sid or None

    def _actions(self) -> tuple[list[str], bool]:
        found = self._one_of("Action")
        if found is None:
            raise self._error("Action", "a statement must have Action or NotAction")
        element, negated = found
        actions = self._strings(element, self._item[element])
        if not actions:
            raise self._error(element, "must name an action")
        for action in actions:
            if not _ACTION.fullmatch(action):
                raise self._error(element, f"{action!r} must be a service's prefix, a colon and an action")
        lower = [action.lower() for action in actions]
        if self._kind is PolicyKind.TRUST and (negated or not all(each.startswith("sts:") for each in lower)):
            raise self._error(element, "a role trust policy may only name actions of sts")
        return lower, negated

    def _resources(self) -> tuple[tuple[Pattern, ...], bool]:
        found = self._one_of("Resource")
        if found is None:
            # A resource-based policy without one is about the resource that it is attached to.
            if self._kind is PolicyKind.IDENTITY:
                raise self._error("Resource", "a statement must have Resource or NotResource")
            return (self._resource("Resource", "*"),), False
        element, negated = found
        if self._kind is PolicyKind.TRUST:
            raise self._error(element, "a role trust policy must not have it")
        resources = self._strings(element, self._item[element])
        if not resources:
            raise self._error(element, "must name a resource")
        return tuple(self._resource(element, each) for each in resources), negated

    def _resource(self, element: str, text: str) -> Pattern:
        try:
            template = parse_template(text, variables=self._variables)
        except ValueError as error:
            raise self._error(element, error) from None
        if text == "*":
            return Pattern(template)
        segments = split_arn(template)
        if segments is None or segments[0] != ("arn",):
            raise self._error(element, f'{text!r} must be an ARN of six parts, or "*"')
        if any(variables_in(segment) for segment in segments[:5]):
            raise self._error(element, f"{text!r} may have policy variables after the fifth colon only")
        if any(not isinstance(token, str) for token in segments[2]):
            raise self._error(element, f"{text!r} must name one service in its third part")
        return Pattern(template, arn=True)

    def _conditions(self) -> tuple[AnyCondition, ...]:
        try:
            return compile_conditions(self._item.get("Condition", {}), variables=self._variables)
        except ValueError as error:
            raise self._error("Condition", error) from None

    def _principals(self) -> Principals | None:
        found = self._one_of("Principal")
        if self._kind is PolicyKind.IDENTITY:
            if found is not None:
                raise self._error(found[0], "an identity-based policy must not name principals")
            return None
        if found is None:
            raise self._error("Principal", f"a {self._kind.value} must name principals")
        element, negated = found
        if negated and self._kind is PolicyKind.TRUST:
            raise self._error(element, "a role trust policy must not have it")
        try:
            return parse_principals(self._item[element], negated=negated)
        except ValueError as error:
            raise self._error(element, error) from None


def _judged(statement: Statement, unfilled: frozenset[str]) -> Statement:
    """The statement, so that what cannot be judged of it denies, and allows nothing."""
    denies = statement.denies
    conditions = tuple(
        Unfilled(each, each.keys & unfilled, denies) if each.keys & unfilled else each
        for each in statement.conditions
    )
    resources = tuple(
        UnfilledPattern(each, each.variables & unfilled, denies != statement.not_resource)
        if each.variables & unfilled
        else each
        for each in statement.resources
    )
    return replace(statement, conditions=conditions, resources=resources, unfilled=unfilled)


def _has_wildcard(text: str) -> bool:
    return "*" in text or "?" in text
