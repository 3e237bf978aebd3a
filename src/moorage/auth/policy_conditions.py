"""The Condition element: operators, set operators, and what they make of keys that are missing.

Three rules explain most of what follows:

* Conditions are joined by AND, the values of one condition by OR, and a negated operator is the negation of its
  positive twin, so that its values are joined by NOR ("Conditions with multiple context keys or values").
* A key that the request lacks does not match: the condition is false, with a negated operator true, and with
  `…IfExists` true ("IAM JSON policy elements: Condition operators").
* `ForAllValues:` is true when there are no values, `ForAnyValue:` false, whatever the operator ("Set operators for
  multivalued context keys").

The pages named here are of the IAM User Guide.
"""

import base64
import binascii
import ipaddress
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any, TypeVar

from moorage.auth.arns import Facts, Pattern, parse_template, resolve, text_of, variables_in

Test = Callable[[str, Facts], bool]
"""Whether one value of the request matches one of the policy's."""

Parsed = TypeVar("Parsed")

_ADDRESSES = 2048
_NUMBER = re.compile(r"[+-]?[0-9]{1,400}(\.[0-9]{1,400})?")
_EPOCH = re.compile(r"[0-9]{5,18}(\.[0-9]{1,9})?|0")
_DATE = re.compile(
    r"(?P<year>[0-9]{4})(-(?P<month>[0-9]{2})(-(?P<day>[0-9]{2})"
    r"(T(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})(:(?P<second>[0-9]{2})(\.(?P<fraction>[0-9]{1,9}))?)?"
    r"(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2}))?)?)?"
)
_EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
_BOOLEANS = {"true": True, "false": False}


class Quantifier(Enum):
    """A set operator."""

    ALL = "forallvalues:"
    ANY = "foranyvalue:"


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator applied to one key. `keys` are all the context keys it depends on, in lower case."""

    key: str
    test: Test
    negated: bool
    quantifier: Quantifier | None
    if_exists: bool
    keys: frozenset[str]

    def holds(self, facts: Facts) -> bool:
        value = facts.get(self.key)
        if self.quantifier is not None:
            return self._holds_for_set(value, facts)
        if value is None or value == ():
            return self.negated or self.if_exists
        if isinstance(value, tuple):
            if len(value) > 1:
                return False  # "Multivalued context keys require a condition set operator."
            value = value[0]
        return self.test(value, facts) != self.negated

    def _holds_for_set(self, value: str | tuple[str, ...] | None, facts: Facts) -> bool:
        """ "ForAllValues … also returns true if there are no context keys in the request, or if the context key value
        resolves to a null dataset, such as an empty string. … ForAnyValue … For no matching context key or if the key
        resolves to a null dataset, the condition returns false." """
        if value is None and self.if_exists:
            return True
        values = (value,) if isinstance(value, str) else value or ()
        every = self.quantifier is Quantifier.ALL
        if not any(values):
            return every
        results = (self.test(each, facts) != self.negated for each in values)
        return all(results) if every else any(results)


@dataclass(frozen=True, slots=True)
class NullCheck:
    """`Null`: "either true (the key doesn't exist — it is null) or false (the key exists and its value is not
    null)"."""

    key: str
    accepted: frozenset[bool]
    keys: frozenset[str]

    def holds(self, facts: Facts) -> bool:
        value = facts.get(self.key)
        is_null = value is None or (isinstance(value, tuple) and not any(value))
        return is_null in self.accepted


@dataclass(frozen=True, slots=True)
class Unfilled:
    """A condition on keys that this server never fills (`moorage.auth.condition_keys`): it cannot be judged, and is
    taken to hold or not as `otherwise` says. A simulation may give the keys."""

    condition: "AnyCondition"
    unfilled: frozenset[str]
    otherwise: bool

    @property
    def key(self) -> str:
        return self.condition.key

    @property
    def keys(self) -> frozenset[str]:
        return self.condition.keys

    def holds(self, facts: Facts) -> bool:
        return self.condition.holds(facts) if self.unfilled <= facts.keys() else self.otherwise


AnyCondition = Condition | NullCheck | Unfilled


def compile_conditions(block: object, *, variables: bool) -> tuple[AnyCondition, ...]:
    """The conditions of a statement, all of which must hold.

    Raises:
        ValueError: an operator is unknown, or a value is none of the operator's type.
    """
    if not isinstance(block, Mapping):
        raise ValueError("must be an object of operators")
    return tuple(
        _compile_condition(name, key, values, variables)
        for name, tests in block.items()
        for key, values in _tests_of(name, tests)
    )


def _tests_of(name: object, tests: object) -> list[tuple[str, object]]:
    if not isinstance(tests, Mapping):
        raise ValueError(f"{name} must be an object of condition keys")
    for key in tests:
        if not isinstance(key, str) or not key:
            raise ValueError(f"{name} has a condition key that is empty or no string")
    return list(tests.items())


def _compile_condition(name: object, key: str, values: object, variables: bool) -> AnyCondition:
    try:
        quantifier, operator_name, if_exists = _parse_operator(name)
        texts = _texts(values)
        if operator_name == "null":
            if quantifier or if_exists:
                raise ValueError("Null takes neither a set operator nor IfExists")
            return NullCheck(
                key.lower(), frozenset(map(_parse_strictly(_boolean), texts)), frozenset((key.lower(),))
            )
        make_test, negated = _OPERATORS[operator_name]
        test, keys = make_test(texts, variables)
    except ValueError as error:
        raise ValueError(f"{name}, {key}: {error}") from None
    return Condition(key.lower(), test, negated, quantifier, if_exists, keys | {key.lower()})


def _parse_operator(name: object) -> tuple[Quantifier | None, str, bool]:
    if not isinstance(name, str):
        raise ValueError("the name of an operator must be a string")
    rest = name.lower()
    quantifier = next((each for each in Quantifier if rest.startswith(each.value)), None)
    if quantifier is not None:
        rest = rest.removeprefix(quantifier.value)
    if_exists = rest.endswith("ifexists")
    rest = rest.removesuffix("ifexists")
    if rest != "null" and rest not in _OPERATORS:
        raise ValueError(f"{name!r} is not a condition operator")
    return quantifier, rest, if_exists


def _texts(values: object) -> list[str]:
    """ "Quotation marks are optional for numeric and Boolean values" ("Grammar of the IAM JSON policy language")."""
    return [_text(value) for value in (values if isinstance(values, list) else [values])]


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return format(Decimal(str(value)), "f")
    raise ValueError("a value must be a string, a number or a Boolean")


# --- Families of operators: the policy's values to a test, and the context keys of their variables ------

MakeTest = Callable[[list[str], bool], tuple[Test, frozenset[str]]]


def _equals(
    texts: list[str], variables: bool, fold: Callable[[str], str] = str
) -> tuple[Test, frozenset[str]]:
    """Exact comparison. A value is compared with what the templates say once their variables are replaced; one
    whose variable has no value equals nothing."""
    templates = [parse_template(text, variables=variables, wildcards=False) for text in texts]
    constants = frozenset(fold(text_of(each)) for each in templates if not variables_in(each))
    variable = [each for each in templates if variables_in(each)]

    def test(value: str, facts: Facts) -> bool:
        folded = fold(value)
        if folded in constants:
            return True
        resolved = (resolve(each, facts) for each in variable)
        return any(each is not None and fold(text_of(each)) == folded for each in resolved)

    return test, frozenset().union(*map(variables_in, variable))


def _equals_ignoring_case(texts: list[str], variables: bool) -> tuple[Test, frozenset[str]]:
    return _equals(texts, variables, str.casefold)


def _like(texts: list[str], variables: bool, arn: bool = False) -> tuple[Test, frozenset[str]]:
    patterns = [Pattern(parse_template(text, variables=variables), arn=arn) for text in texts]

    def test(value: str, facts: Facts) -> bool:
        return any(pattern.matches(value, facts) for pattern in patterns)

    return test, frozenset().union(*(pattern.variables for pattern in patterns))


def _arn_like(texts: list[str], variables: bool) -> tuple[Test, frozenset[str]]:
    """ "Each of the six colon-delimited components of the ARN is checked separately … The ArnEquals and ArnLike
    condition operators behave identically." """
    return _like(texts, variables, arn=True)


def _bool(texts: list[str], variables: bool) -> tuple[Test, frozenset[str]]:
    """ "You can use a policy variable with the Boolean condition operator." """
    equals, keys = _equals([text if "${" in text else text.lower() for text in texts], variables, str.lower)
    if not keys:
        for text in texts:
            _parse_strictly(_boolean)(text)
    return (lambda value, facts: _boolean(value) is not None and equals(value, facts)), keys


def _comparing(parse: Callable[[str], Any], compare: Callable[[Any, Any], bool]) -> MakeTest:
    """An operator on parsed values, which takes no variables. A request's value that cannot be parsed matches
    nothing; a policy's is refused."""

    def make_test(texts: list[str], variables: bool) -> tuple[Test, frozenset[str]]:
        limits = [_parse_strictly(parse)(text) for text in texts]

        def test(value: str, facts: Facts) -> bool:
            parsed = parse(value)
            return parsed is not None and any(compare(parsed, limit) for limit in limits)

        return test, frozenset()

    return make_test


def _parse_strictly(parse: Callable[[str], Parsed | None]) -> Callable[[str], Parsed]:
    def strictly(text: str) -> Parsed:
        parsed = parse(text)
        if parsed is None:
            raise ValueError(f"{text!r} is not a value of this operator")
        return parsed

    return strictly


def _boolean(text: str) -> bool | None:
    return _BOOLEANS.get(text.lower())


def _number(text: str) -> Decimal | None:
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def _date(text: str) -> float | None:
    """Seconds since the epoch, of "one of the W3C implementations of the ISO 8601 date formats or … epoch (UNIX)
    time". Four digits are a year."""
    if _EPOCH.fullmatch(text):
        return float(text)
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    try:
        moment = datetime(
            int(match["year"]),
            int(match["month"] or 1),
            int(match["day"] or 1),
            int(match["hour"] or 0),
            int(match["minute"] or 0),
            int(match["second"] or 0),
            tzinfo=_zone(match["zone"]),
        )
    except ValueError:
        return None
    return (moment - _EPOCH_START).total_seconds() + float(f"0.{match['fraction'] or 0}")


def _zone(text: str | None) -> timezone:
    if text in (None, "Z"):
        return UTC
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[-2:]))
    return timezone(-offset if text[0] == "-" else offset)


def _binary(text: str) -> bytes | None:
    """Binary values are base64 in policies, and in the contexts that are given to this module."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@lru_cache(maxsize=_ADDRESSES)
def _network(text: str) -> Network | None:
    """An address without a prefix is the network of that address alone. An IPv4 address that an IPv6 socket reports
    (`::ffff:192.0.2.1`) is that IPv4 address."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen == network.max_prefixlen:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network(mapped)
    return network


def _within(address: Network, network: Network) -> bool:
    return (
        address.version == network.version
        and address.prefixlen == address.max_prefixlen
        and address.network_address in network
    )


_numeric_equals = _comparing(_number, operator.eq)
_date_equals = _comparing(_date, operator.eq)
_ip_address = _comparing(_network, _within)

_OPERATORS: Mapping[str, tuple[MakeTest, bool]] = {
    "stringequals": (_equals, False),
    "stringnotequals": (_equals, True),
    "stringequalsignorecase": (_equals_ignoring_case, False),
    "stringnotequalsignorecase": (_equals_ignoring_case, True),
    "stringlike": (_like, False),
    "stringnotlike": (_like, True),
    "numericequals": (_numeric_equals, False),
    "numericnotequals": (_numeric_equals, True),
    "numericlessthan": (_comparing(_number, operator.lt), False),
    "numericlessthanequals": (_comparing(_number, operator.le), False),
    "numericgreaterthan": (_comparing(_number, operator.gt), False),
    "numericgreaterthanequals": (_comparing(_number, operator.ge), False),
    "dateequals": (_date_equals, False),
    "datenotequals": (_date_equals, True),
    "datelessthan": (_comparing(_date, operator.lt), False),
    "datelessthanequals": (_comparing(_date, operator.le), False),
    "dategreaterthan": (_comparing(_date, operator.gt), False),
    "dategreaterthanequals": (_comparing(_date, operator.ge), False),
    "bool": (_bool, False),
    "binaryequals": (_comparing(_binary, operator.eq), False),
    "ipaddress": (_ip_address, False),
    "notipaddress": (_ip_address, True),
    "arnequals": (_arn_like, False),
    "arnlike": (_arn_like, False),
    "arnnotequals": (_arn_like, True),
    "arnnotlike": (_arn_like, True),
}
"""By lower-case name: how to make the positive test, and whether the operator negates it."""
