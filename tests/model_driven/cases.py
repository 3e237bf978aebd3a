"""From a service model to requests: for each place of an operation's input what is valid there, and what is not."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from botocore.model import OperationModel, Shape

from tests.model_driven.documents import (
    ABSENT,
    CONTAINERS,
    FLOATS,
    INTEGERS,
    ITEM,
    KEY,
    VALUE,
    Path,
    Place,
    blob,
    document,
    full,
    is_union,
    least,
    places,
    words_of,
)
from tests.model_driven.forms import Form, form

LONG = 300
"""The length of strings that have no limit, and the greatest number of elements that is tried."""


@dataclass(frozen=True)
class Case:
    """One request. An invalid one breaks one constraint, named as the server should name it."""

    operation: OperationModel
    path: Path
    kind: str
    """`valid`, or the constraint that is broken: `required`, `min`, `max`, `pattern`, `enum`, `type`."""

    document: Any
    where: str = ""
    """The path of the member that is refused, as AWS prints it."""

    rule: str = ""

    @property
    def member(self) -> str:
        """The path as documentation writes it, without the steps into lists and maps."""
        return ".".join(step for step in self.path if step not in (ITEM, KEY, VALUE))

    @property
    def form(self) -> Form:
        shape = self.operation.input_shape
        return {} if shape is None else form(shape, self.document)

    @property
    def is_sendable(self) -> bool:
        """Whether the service's protocol can say it: forms know no null, and nothing that is empty."""
        if self.operation.service_model.metadata["protocol"] != "query":
            return True
        return not (self.document and _has_gaps(self.document))

    def __str__(self) -> str:
        return (
            f"{self.operation.name} {'.'.join(self.path) or '(all)'} {self.kind} {str(self.document)[:200]}"
        )


def valid(operation: OperationModel) -> Iterator[Case]:
    """Every place at its edges, and with each value of its enum; nothing optional at all, and everything."""
    shape = operation.input_shape
    if shape is None:
        yield Case(operation, (), "valid", {})
        return
    yield Case(operation, (), "valid", least(shape))
    yield Case(operation, (), "valid", full(shape))
    for place in places(shape):
        for value in good_values(place):
            yield Case(operation, place.path, "valid", document(shape, place.path, value))


def invalid(operation: OperationModel) -> Iterator[Case]:
    """Every constraint of every place, broken."""
    shape = operation.input_shape
    for place in places(shape) if shape is not None else ():
        for kind, value, rule in chain(_missing(place), _broken(place.shape)):
            is_element = kind == "required" and place.path[-1] in (ITEM, VALUE)
            where = printed_path(shape, place.path[:-1] if is_element else place.path)
            yield Case(operation, place.path, kind, document(shape, place.path, value), where, rule)


def mistyped(operation: OperationModel) -> Iterator[Case]:
    """Every place with each of JSON's types that it does not have; forms have texts only, which are no numbers."""
    shape = operation.input_shape
    wrong = _other_texts if operation.service_model.metadata["protocol"] == "query" else _of_other_types
    for place in places(shape) if shape is not None else ():
        if place.path[-1] != KEY:
            for value in wrong(place.shape):
                made = document(shape, place.path, value)
                yield Case(operation, place.path, "type", made, ".".join(place.path).replace(ITEM, "1"))


def _has_gaps(value: Any) -> bool:
    if isinstance(value, dict):
        return not value or any(map(_has_gaps, value.values()))
    return value is None or (isinstance(value, list) and any(map(_has_gaps, value)))


# --- Values --------------------------------------------------------------------------------------------


def good_values(place: Place) -> list[Any]:
    shape = place.shape
    values = _good_values(shape)
    if not place.required and not place.of_union and place.path[-1] not in (ITEM, KEY, VALUE):
        values.append(None)
    return values


def _good_values(shape: Shape) -> list[Any]:
    limits = shape.metadata
    if shape.type_name == "structure":
        if is_union(shape):
            return [{name: least(member)} for name, member in shape.members.items()]
        return [least(shape), full(shape)]
    if shape.type_name in ("list", "map"):
        sizes = {limits.get("min", 0), min(limits.get("max", 2), LONG)}
        return [_of_size(shape, size) for size in sorted(sizes)]
    if shape.type_name == "string":
        if "enum" in limits:
            return list(limits["enum"])
        words = words_of(shape)
        lengths = {max(limits.get("min", 0), words.shortest, 0 if _may_be_empty(shape) else 1)}
        lengths.add(limits.get("max", LONG))
        return sorted({words.of_length(length) for length in lengths})
    if shape.type_name in INTEGERS:
        bound = INTEGERS[shape.type_name]
        return [limits.get("min", -bound), limits.get("max", bound - 1)]
    if shape.type_name in FLOATS:
        return [limits.get("min", -1.5), limits.get("max", 1e30), 1]
    if shape.type_name == "blob":
        return [blob(limits.get("min", 0)), blob(min(limits.get("max", LONG), LONG))]
    if shape.type_name == "timestamp":
        return [0, 1_700_000_000.125, "2024-02-29T12:00:00Z", "2024-02-29T12:00:00+05:30"]
    return [True, False]


def _may_be_empty(shape: Shape) -> bool:
    pattern = shape.metadata.get("pattern", "*")
    return bool(pattern.endswith(("*", "*)")))


def _of_size(shape: Shape, size: int) -> Any:
    if shape.type_name == "list":
        return [least(shape.member, number) for number in range(size)]
    return {least(shape.key, number): least(shape.value, number) for number in range(size)}


def _missing(place: Place) -> Iterator[tuple[str, Any, str]]:
    if place.required:
        yield "required", ABSENT, "Member must not be null"
        yield "required", None, "Member must not be null"
    elif place.path[-1] in (ITEM, VALUE):
        subject = "Member" if place.path[-1] == ITEM else "Map value"
        yield "required", None, f"{subject} must satisfy constraint: [Member must not be null]"


def _broken(shape: Shape) -> Iterator[tuple[str, Any, str]]:
    limits = shape.metadata
    least_size, most = limits.get("min", 0), limits.get("max")
    longer = "Member must have length less than or equal to {}"
    shorter = "Member must have length greater than or equal to {}"
    if shape.type_name == "string":
        if "enum" in limits:
            for value in ("", "no such value", str(limits["enum"][0]).swapcase() + " "):
                yield "enum", value, f"Member must satisfy enum value set: [{', '.join(limits['enum'])}]"
            return
        words = words_of(shape)
        if most is not None:
            yield "max", words.of_length(most + 1), longer.format(most)
        if least_size > 0:
            yield "min", words.of_length(least_size)[: least_size - 1], shorter.format(least_size)
        for value in words.bad:
            if len(value) <= (most or LONG):
                yield "pattern", value, f"Member must satisfy regular expression pattern: {limits['pattern']}"
    elif shape.type_name in ("list", "map"):
        if most is not None and most <= LONG:
            yield "max", _of_size(shape, most + 1), longer.format(most)
        if least_size > 0:
            yield "min", _of_size(shape, least_size - 1), shorter.format(least_size)
    elif shape.type_name in INTEGERS or shape.type_name in FLOATS:
        if most is not None:
            yield "max", most + 1, f"Member must have value less than or equal to {most}"
        if "min" in limits:
            yield "min", least_size - 1, f"Member must have value greater than or equal to {least_size}"


def _of_other_types(shape: Shape) -> list[Any]:
    kind = shape.type_name
    number: list[Any] = ["one", "", True, [], {}]
    if kind in INTEGERS:
        bound = INTEGERS[kind]
        return [*number, 1.5, bound, -bound - 1, 10**400]
    if kind in FLOATS:
        return [*number, 10**400]
    return {
        "string": [1, 1.5, True, [], {}, ["a"]],
        "boolean": ["true", "", 0, 1, [], {}],
        "timestamp": ["yesterday", "", True, [], {}, 1e300],
        "blob": ["?", 1, True, [], {}],
        "structure": ["a", 1, True, []],
        "list": ["a", 1, True, {}],
        "map": ["a", 1, True, []],
    }[kind]


def _other_texts(shape: Shape) -> list[str]:
    return {
        "boolean": ["yes", "1", "", " true", "trueish"],
        "timestamp": ["yesterday", ""],
        "blob": ["?"],
        "integer": _NO_INTEGERS,
        "long": _NO_INTEGERS,
        "float": _NO_NUMBERS,
        "double": _NO_NUMBERS,
    }.get(shape.type_name, [])


_NO_INTEGERS = ["one", "", "1.5", "1_0", " 1", "1 ", "١", "1e2", "0x1", str(2**63), "9" * 5000]
_NO_NUMBERS = ["one", "", "1_0", " 1", "nan", "inf", "1e999"]


# --- Where ---------------------------------------------------------------------------------------------


def printed_path(shape: Shape, path: Path) -> str:
    """As AWS prints it: elements that are scalars have no path of their own, but that of their list or map."""
    parts: list[str] = []
    for step in path:
        if step == KEY:
            break
        if step in (ITEM, VALUE):
            inner = shape.member if step == ITEM else shape.value
            if inner.type_name not in CONTAINERS:
                break
            parts += ["1" if step == ITEM else least(shape.key), "member"]
        else:
            parts.append(step[0].lower() + step[1:])
            inner = shape.members[step]
        shape = inner
    return ".".join(parts)
