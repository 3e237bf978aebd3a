"""The patterns of AWS service models, which are Java's, as Python ones.

A value satisfies a pattern when all of it matches (Java's `matches()`), so the compiled ones are for `fullmatch`.
What differs between the two languages and occurs in the models: `.` stops at five line terminators rather than
one, the classes of `\\p{…}`, `\\z`, an anchor with a quantifier, and surrogate pairs written as two escapes.

Python's engine backtracks, and a few patterns of the models nest quantifiers so that a bad value would take
forever; those are replaced by ones that accept the same strings and have one way to do so.
"""

import re
import unicodedata
from functools import cache

_ANY = r"[^\n\r\u0085\u2028\u2029]"

_POSIX = {
    "Alnum": "a-zA-Z0-9",
    "Alpha": "a-zA-Z",
    "ASCII": r"\x00-\x7f",
    "Blank": r" \t",
    "Digit": "0-9",
    "Graph": "!-~",
    "Lower": "a-z",
    "Print": " -~",
    "Punct": r"!-/:-@\[-`{-~",
    "Space": r" \t\n\x0b\f\r",
    "Upper": "A-Z",
    "XDigit": "0-9a-fA-F",
}

_UNAMBIGUOUS = {
    r".*(?:[ \r\n\t].*)*": r"[^\u0085\u2028\u2029]*",
    r".*(?:[ \r\n\t].*)*.*": r"[^\u0085\u2028\u2029]*",
    r"[a-z0-9]([-a-z0-9]*[a-z0-9]){0,39}?": r"[a-z0-9]([-a-z0-9]*[a-z0-9])?",
    r"https://([.\-_a-zA-Z0-9]+/?){3,1016}": (
        r"https://(?=(?:[.\-_a-zA-Z0-9]/?){3})[.\-_a-zA-Z0-9]+(?:/[.\-_a-zA-Z0-9]+){0,1015}/?"
    ),
}

_TOKEN = re.compile(
    r"""
    \\u(?P<high>[dD][89abAB][0-9a-fA-F]{2})\\u(?P<low>[dD][c-fC-F][0-9a-fA-F]{2})
    | \\[pP]\{(?P<property>\w+)\}
    | (?P<escape>\\.)
    | (?P<plain>.)
    """,
    re.VERBOSE | re.DOTALL,
)


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern, for `fullmatch`."""
    return re.compile(_UNAMBIGUOUS.get(pattern) or translate(pattern), re.ASCII)


def translate(pattern: str) -> str:
    """A Java pattern in Python's syntax.

    Raises:
        ValueError: it uses a character class that is not known here.
    """
    parts = []
    in_class = False
    for token in _TOKEN.finditer(pattern):
        parts.append(_translate_token(token, in_class))
        if token["plain"] == "[":
            in_class = True
        elif token["plain"] == "]":
            in_class = False
    return "".join(parts)


def _translate_token(token: re.Match[str], in_class: bool) -> str:
    if token["high"]:
        return _supplementary(int(token["high"], 16), int(token["low"], 16))
    if token["property"]:
        members = _class_members(token["property"])
        negated = token[0][1] == "P"
        if in_class and negated:
            raise ValueError(f"a negated property inside a class is not supported: {token[0]}")
        return members if in_class else f"[{'^' if negated else ''}{members}]"
    if in_class:
        return token[0]
    return _OUTSIDE_CLASS.get(token[0], token[0])


_OUTSIDE_CLASS = {".": _ANY, "$": r"(?:\Z)", r"\z": r"\Z", r"\Z": r"(?=\n?\Z)"}


def _supplementary(high: int, low: int) -> str:
    code = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)
    return f"\\U{code:08x}"


def _class_members(name: str) -> str:
    if name in _POSIX:
        return _POSIX[name]
    members = _category_members().get(name.removeprefix("Is"))
    if members is None:
        raise ValueError(f"unknown character class \\p{{{name}}}")
    return members


@cache
def _category_members() -> dict[str, str]:
    """Ranges of code points by Unicode general category, by its first letter and by both.

    Planes 4 to 13 and the private ones hold nothing of the categories that patterns name.
    """
    ranges: dict[str, list[list[int]]] = {}
    for code in (*range(0x40000), *range(0xE0000, 0xE1000)):
        category = unicodedata.category(chr(code))
        if category[0] == "C":
            continue
        for name in (category[0], category):
            known = ranges.setdefault(name, [])
            if known and known[-1][1] == code - 1:
                known[-1][1] = code
            else:
                known.append([code, code])
    return {
        name: "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in known)
        for name, known in ranges.items()
    }
