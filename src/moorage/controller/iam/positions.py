"""Where the statements of a policy are in its text, as the simulations tell it.

As IAM does it: a statement begins right after the bracket or comma before it, white space included, and its end is
the position right after its last character. Lines and columns count from 1.
"""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


class Position(NamedTuple):
    line: int
    column: int


def statement_positions(document: str) -> list[tuple[Position, Position]]:
    """Start and end of each statement, of a document that is a policy."""
    for name, start in _items(document, document.index("{")):
        if name == "Statement":
            here = _skip_space(document, start)
            starts = [start for _, start in _items(document, here)] if document[here] == "[" else [start]
            return [
                (_position(document, start), _position(document, _end(document, start))) for start in starts
            ]
    return []


def _items(text: str, opening: int) -> Iterator[tuple[str, int]]:
    """The names of an object's members, or "" for a list's elements, and where their values start."""
    start, is_object = opening + 1, text[opening] == "{"
    closing = "}" if is_object else "]"
    while text[_skip_space(text, start)] != closing:
        name = ""
        if is_object:
            name, end = _DECODER.raw_decode(text, _skip_space(text, start))
            start = text.index(":", end) + 1
        yield name, start
        end = _skip_space(text, _end(text, start))
        if text[end] == closing:
            return
        start = end + 1


def _end(text: str, start: int) -> int:
    return int(_DECODER.raw_decode(text, _skip_space(text, start))[1])


def _skip_space(text: str, start: int) -> int:
    space = _SPACE.match(text, start)
    return space.end() if space else start


def _position(text: str, index: int) -> Position:
    return Position(text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index))
