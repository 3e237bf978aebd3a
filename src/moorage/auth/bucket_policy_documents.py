"""What a bucket's policy must be, beyond the grammar of policies, in S3's words; and whether it is public.

Sources: "Policies and permissions in Amazon S3" and "Blocking public access to your Amazon S3 storage" (the meaning
of "public") in the S3 user guide, "Actions, resources, and condition keys for Amazon S3" in the service authorization
reference. The texts are those that S3 answers with, as far as they are known.
"""

import ipaddress
import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from moorage.auth.actions import S3_BUCKET_ACTIONS, S3_OBJECT_ACTIONS
from moorage.auth.arns import Pattern, parse_template
from moorage.auth.policy_documents import (
    Policy,
    PolicyError,
    PolicyKind,
    check_condition_keys,
    compile_policy,
)
from moorage.auth.policy_principals import parse_principals

MOST_BYTES: Final = 20 * 1024
"""Of a document: "Bucket policies are limited to 20 KB in size"."""

_BUCKET_ARN: Final = "arn:aws:s3:::"
_STATEMENT_ELEMENTS: Final = ("Effect", "Principal", "Action", "Resource")


_LISTS: Final = frozenset(("s3:listbucket", "s3:listbucketversions"))
_ONLY_WITH: Final[Mapping[str, frozenset[str]]] = {
    "s3:prefix": _LISTS,
    "s3:delimiter": _LISTS,
    "s3:max-keys": _LISTS,
    "s3:x-amz-acl": frozenset(
        ("s3:putobject", "s3:putobjectacl", "s3:putobjectversionacl", "s3:putbucketacl")
    ),
    "s3:versionid": frozenset(
        action for action in S3_OBJECT_ACTIONS if "objectversion" in action and "replication" not in action
    ),
}
"""The actions that some condition keys go with. Each action that a statement names without a wildcard must be one."""


class MalformedBucketPolicy(ValueError):
    """A document that is no policy of this bucket: S3's MalformedPolicy, with its text."""


def compile_bucket_policy(document: bytes, *, bucket: str) -> Policy:
    """Check what is to be the policy of a bucket, and make it ready to evaluate. Whether its principals exist is for
    the caller to check.

    Raises:
        MalformedBucketPolicy: see there.
    """
    if len(document) > MOST_BYTES:
        raise MalformedBucketPolicy(f"Policies must not be larger than {MOST_BYTES} bytes")
    if not document.startswith(b"{"):
        raise MalformedBucketPolicy("Policies must be valid JSON and the first byte must be '{'")
    try:
        text = document.decode()
        policy = json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedBucketPolicy("This policy contains invalid Json") from None
    if "Statement" not in policy:
        raise MalformedBucketPolicy("Missing required field Statement")
    statements = _listed(policy["Statement"])
    if not statements:
        raise MalformedBucketPolicy("Could not parse the policy: Statement is empty!")
    if policy.get("Version", "2008-10-17") not in ("2008-10-17", "2012-10-17"):
        raise MalformedBucketPolicy("The policy must contain a valid version string")
    for statement in statements:
        if not isinstance(statement, dict):
            raise MalformedBucketPolicy("Policies must be valid JSON and the first byte must be '{'")
        _check_statement(statement, bucket)
    try:
        compiled = compile_policy(text, name=bucket, kind=PolicyKind.RESOURCE)
    except PolicyError as error:
        raise MalformedBucketPolicy(str(error)) from None
    try:
        check_condition_keys(compiled, text)
    except PolicyError as error:
        raise MalformedBucketPolicy(f"Policy has an invalid condition key. {error}") from None
    for statement in compiled.statements:
        named = frozenset() if statement.not_action else statement.actions
        if any(not named <= _ONLY_WITH.get(condition.key, named) for condition in statement.conditions):
            raise MalformedBucketPolicy(
                "Conditions do not apply to combination of actions and resources in statement"
            )
    return compiled


def _check_statement(statement: Mapping[str, Any], bucket: str) -> None:
    for element in _STATEMENT_ELEMENTS:
        if element not in statement and (element == "Effect" or f"Not{element}" not in statement):
            raise MalformedBucketPolicy(f"Missing required field {element}")
    if statement["Effect"] not in ("Allow", "Deny"):
        raise MalformedBucketPolicy(f"Invalid effect: {statement['Effect']}")
    _check_principals(statement)
    actions = _strings(statement, "Action", "Policy has invalid action")
    resources = _strings(statement, "Resource", "Policy has invalid resource")
    if not all(_matching(action) for action in actions):
        raise MalformedBucketPolicy("Policy has invalid action")
    if not all(_is_in(bucket, resource) for resource in resources):
        raise MalformedBucketPolicy("Policy has invalid resource")
    if "Action" in statement and "Resource" in statement:
        keys = any("/" in each or _has_wildcard(each) for each in resources)
        bucket_itself = any("/" not in each for each in resources)
        for action in actions:
            matching = _matching(action)
            if not (keys and matching & S3_OBJECT_ACTIONS) and not (
                bucket_itself and matching & S3_BUCKET_ACTIONS
            ):
                raise MalformedBucketPolicy("Action does not apply to any resource(s) in statement")


def _check_principals(statement: Mapping[str, Any]) -> None:
    element = "Principal" if "Principal" in statement else "NotPrincipal"
    try:
        principals = parse_principals(statement[element], negated=element == "NotPrincipal")
    except ValueError:
        raise MalformedBucketPolicy("Invalid principal in policy") from None
    if not (
        principals.everyone
        or principals.accounts
        or principals.arns
        or principals.services
        or principals.federated
    ):
        raise MalformedBucketPolicy("Invalid principal in policy")


def _strings(statement: Mapping[str, Any], element: str, problem: str) -> list[str]:
    """Of an element or its Not… twin."""
    values = _listed(statement.get(element, statement.get(f"Not{element}")))
    texts = [each for each in values if isinstance(each, str)]
    if not texts or len(texts) != len(values):
        raise MalformedBucketPolicy(problem)
    return texts


@lru_cache(maxsize=1024)
def _matching(action: str) -> frozenset[str]:
    """The actions that a text in a policy means."""
    lower = action.lower()
    known = S3_OBJECT_ACTIONS | S3_BUCKET_ACTIONS
    if lower in ("*", "*:*"):
        return known
    if not _has_wildcard(lower):
        return known & {lower}
    pattern = Pattern(parse_template(lower, variables=False))
    return (
        frozenset(each for each in known if pattern.matches(each, {}))
        if lower.startswith("s3:")
        else frozenset()
    )


def _is_in(bucket: str, resource: str) -> bool:
    """Whether an ARN, perhaps with wildcards, is of the bucket or of what is in it."""
    if not resource.startswith(_BUCKET_ARN + bucket):
        return False
    rest = resource[len(_BUCKET_ARN + bucket) :]
    return rest == "" or rest[0] in "/*?"


def _has_wildcard(text: str) -> bool:
    return "*" in text or "?" in text


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


# --- Public or not -------------------------------------------------------------------------------------

_BOUNDING: Final = re.compile(
    r"aws:(source(ip|arn|vpc|vpce|owner|account)|userid|principal(arn|account|orgid|orgpaths|servicename))"
    r"|s3:dataaccesspoint(arn|account)"
)
_POSITIVE: Final = re.compile(
    r"(foranyvalue:)?(stringequals|stringequalsignorecase|stringlike|arnequals|arnlike|ipaddress)"
)
_LEAST_PREFIX: Final = {4: 8, 6: 32}
"""Bits of a network of addresses: access from one that is broader is public."""


def is_public(document: str) -> bool:
    """Whether a valid policy allows something to everyone.

    "To be considered non-public, a bucket policy must grant access only to fixed values (values that don't contain a
    wildcard or an AWS Identity and Access Management Policy Variable)" of principals, or of condition keys that bound
    who asks.
    """
    return any(
        statement["Effect"] == "Allow"
        and ("NotPrincipal" in statement or _is_everyone(statement["Principal"]))
        and not _is_bounded(statement.get("Condition", {}))
        for statement in _listed(json.loads(document)["Statement"])
    )


def _is_everyone(principal: object) -> bool:
    return parse_principals(principal, negated=False).everyone


def _is_bounded(conditions: Mapping[str, Mapping[str, Any]]) -> bool:
    return any(
        _POSITIVE.fullmatch(operator.lower())
        and _BOUNDING.fullmatch(key.lower())
        and _are_fixed(operator.lower(), _listed(values))
        for operator, tests in conditions.items()
        for key, values in tests.items()
    )


def _are_fixed(operator: str, values: Iterable[object]) -> bool:
    texts = [str(each) for each in values]
    if operator.endswith("ipaddress"):
        networks = [ipaddress.ip_network(text, strict=False) for text in texts]
        return all(each.prefixlen >= _LEAST_PREFIX[each.version] for each in networks)
    return not any(_has_wildcard(text) or "${" in text for text in texts)
