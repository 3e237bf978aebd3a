"""The places of an operation's input, and documents that have a chosen value at one of them.

A document is what a client sends, in the types of JSON; the Query protocol's forms are made from them.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from botocore.model import Shape

from tests.model_driven.words import ANY, WORDS, Words

ITEM, KEY, VALUE = "[]", "{key}", "{value}"
"""Steps of a path that are no member's name: an element of a list, a key and a value of a map."""

ABSENT: Any = object()
"""As a value of a document's place: nothing is there."""

INTEGERS = {"integer": 2**31, "long": 2**63}
FLOATS = ("float", "double")
CONTAINERS = ("structure", "list", "map")

Path = tuple[str, ...]


@dataclass(frozen=True)
class Place:
    path: Path
    shape: Shape
    required: bool
    of_union: bool = False

    def __str__(self) -> str:
        return ".".join(self.path)


def places(shape: Shape, path: Path = ()) -> Iterator[Place]:
    """Every place below a shape, at every depth."""
    steps: list[tuple[str, Shape, bool]] = []
    if shape.type_name == "structure":
        steps = [(name, member, name in shape.required_members) for name, member in shape.members.items()]
    elif shape.type_name == "list":
        steps = [(ITEM, shape.member, False)]
    elif shape.type_name == "map":
        steps = [(KEY, shape.key, False), (VALUE, shape.value, False)]
    for step, member, required in steps:
        yield Place((*path, step), member, required, is_union(shape))
        yield from places(member, (*path, step))


def document(shape: Shape, path: Path, value: Any) -> Any:
    """The least document in which `value` is at `path`: what is required is there, and what is on the way."""
    if not path:
        return value
    step, rest = path[0], path[1:]
    if step == ITEM:
        return [document(shape.member, rest, value)]
    if step == KEY:
        return {value: least(shape.value)}
    if step == VALUE:
        return {least(shape.key): document(shape.value, rest, value)}
    made = {} if is_union(shape) else least(shape)
    inner = document(shape.members[step], rest, value)
    if inner is ABSENT:
        made.pop(step, None)
    else:
        made[step] = inner
    return made


def least(shape: Shape, number: int = 0) -> Any:
    """The least value of a shape. Those of different numbers differ, where the shape allows it."""
    limits = shape.metadata
    if shape.type_name == "structure":
        names = shape.required_members or (list(shape.members)[:1] if is_union(shape) else [])
        return {name: least(shape.members[name], number) for name in names}
    if shape.type_name == "list":
        return [least(shape.member, n) for n in range(limits.get("min", 0))]
    if shape.type_name == "map":
        return {least(shape.key, n): least(shape.value, n) for n in range(limits.get("min", 0))}
    if shape.type_name == "string":
        if "enum" in limits:
            return limits["enum"][number % len(limits["enum"])]
        words = words_of(shape)
        length = max(limits.get("min", 0), words.shortest + 3) + number
        return words.of_length(min(length, limits.get("max", length)))
    return _least_scalar(shape, number)


def _least_scalar(shape: Shape, number: int) -> Any:
    limits = shape.metadata
    if shape.type_name in INTEGERS:
        return min(max(limits.get("min", 60), 1) + number, limits.get("max", 2**31 - 1))
    if shape.type_name in FLOATS:
        return limits.get("min", 0.0) + 0.5
    if shape.type_name == "blob":
        return blob(max(limits.get("min", 0), 1))
    return {"boolean": True, "timestamp": 1_700_000_000}[shape.type_name]


def full(shape: Shape) -> Any:
    """Every member is there, at every depth; one element in each list and map."""
    if shape.type_name == "structure":
        names = list(shape.members)[:1] if is_union(shape) else list(shape.members)
        return {name: full(shape.members[name]) for name in names}
    if shape.type_name == "list":
        return [full(shape.member)]
    if shape.type_name == "map":
        return {least(shape.key): full(shape.value)}
    return least(shape)


def words_of(shape: Shape) -> Words:
    """Raises `KeyError` for a pattern that nobody has written words for yet."""
    pattern = shape.metadata.get("pattern")
    return ANY if pattern is None else WORDS[pattern]


def blob(size: int) -> str:
    return base64.b64encode(b"b" * size).decode()


def is_union(shape: Shape) -> bool:
    return bool(getattr(shape, "is_tagged_union", False))
