"""Patterns in policies: text with wildcards and policy variables, and how it matches a name or an ARN.

* `*` stands for any characters and `?` for one. In an ARN they stay within their colon-delimited segment, except in
  the sixth, the resource part, where `*` may take in slashes and colons.
* `${key}` is replaced by the request's value of that context key, `${key, 'text'}` by the text when there is none.
  What is put in never acts as a wildcard. A variable without a value matches nothing.
* `${*}`, `${?}` and `${$}` are those three characters themselves.

Sources, in the IAM User Guide: "IAM JSON policy elements: Resource" (Using wildcards in resource ARNs), "IAM policy
elements: Variables and tags", "Identify AWS resources with Amazon Resource Names (ARNs)".
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

Facts = Mapping[str, str | tuple[str, ...]]
"""The request's context: lower-case keys, and for a multivalued key a tuple."""

_SEGMENTS = 6
_RESOLVED_PATTERNS = 2048
_PLAIN_TOKEN = re.compile(r"(?P<wildcard>[*?])")
_TOKEN = re.compile(r"\$\{(?P<variable>[^{}]*)(?P<end>\}?)|(?P<wildcard>[*?])")
_CHARACTERS = ("*", "?", "$")
"""What `${…}` stands for when it is no variable: itself."""

_VARIABLE = re.compile(r"(?P<key>[^,'*?]+?)\s*(?:,\s*'(?P<default>[^']*)')?")


class Wildcard(Enum):
    MANY = "*"
    ONE = "?"


@dataclass(frozen=True, slots=True)
class Variable:
    """`${key}` or `${key, 'default'}`. The key is in lower case, for key names are not case-sensitive."""

    key: str
    default: str | None

    def resolve(self, facts: Facts) -> str | None:
        """The value, or None: a key that is absent, empty or multivalued has no value to put in ("Policy variables
        with no value"; "You cannot use a multivalued context key as a policy variable")."""
        value = facts.get(self.key)
        return value if isinstance(value, str) and value else self.default


Token = str | Wildcard | Variable
Template = tuple[Token, ...]


def parse_template(text: str, *, variables: bool, wildcards: bool = True) -> Template:
    """Take the text of a policy apart. Without `variables` (policies of version 2008-10-17) and without `wildcards`
    (operators that compare exactly) what looks like one is plain text.

    Raises:
        ValueError: a variable is not closed, or is none.
    """
    tokens: list[Token] = []
    position = 0
    for match in (_TOKEN if variables else _PLAIN_TOKEN).finditer(text):
        _append(tokens, text[position : match.start()])
        position = match.end()
        if match["wildcard"]:
            _append(tokens, Wildcard(match["wildcard"]) if wildcards else match["wildcard"])
        else:
            _append(tokens, _parse_variable(match))
    _append(tokens, text[position:])
    return tuple(tokens)


def variables_in(template: Template) -> frozenset[str]:
    """The context keys that the template's meaning depends on."""
    return frozenset(token.key for token in template if isinstance(token, Variable))


def variable_names(text: str) -> list[str]:
    """The context keys of the variables in a text that `parse_template` takes, as they are spelt."""
    names = [match["variable"] for match in _TOKEN.finditer(text)]
    matches = (_VARIABLE.fullmatch(name) for name in names if name and name not in _CHARACTERS)
    return [match["key"] for match in matches if match is not None]


def resolve(template: Template, facts: Facts) -> Template | None:
    """The template with its variables replaced by their values, or None if one has no value."""
    tokens: list[Token] = []
    for token in template:
        value = token.resolve(facts) if isinstance(token, Variable) else token
        if value is None:
            return None
        _append(tokens, value)
    return tuple(tokens)


def text_of(template: Template) -> str:
    """The text of a template that has neither variables nor wildcards."""
    return "".join(token for token in template if isinstance(token, str))


def split_arn(template: Template) -> list[Template] | None:
    """The six segments, or None if there are fewer."""
    segments: list[list[Token]] = [[]]
    for token in template:
        if not isinstance(token, str):
            segments[-1].append(token)
            continue
        first, *others = token.split(":", _SEGMENTS - len(segments))
        _append(segments[-1], first)
        for other in others:
            segments.append([])
            _append(segments[-1], other)
    return [tuple(segment) for segment in segments] if len(segments) == _SEGMENTS else None


class Pattern:
    """A template made ready to match. `arn` says that it matches segment by segment; `*` alone matches everything."""

    __slots__ = ("_arn", "_compiled", "_template", "variables")

    def __init__(self, template: Template, *, arn: bool = False) -> None:
        self.variables = variables_in(template)
        self._template = template
        self._arn = arn
        self._compiled = None if self.variables else _compile(template, arn=arn)

    def matches(self, value: str, facts: Facts) -> bool:
        compiled = self._compiled
        if compiled is None:
            resolved = resolve(self._template, facts)
            if resolved is None:
                return False
            compiled = _compile_resolved(resolved, self._arn)
        return compiled.fullmatch(value) is not None


def _append(tokens: list[Token], token: Token) -> None:
    """Add a token; text joins the text before it, so that equal patterns are equal templates."""
    if token == "":
        return
    if isinstance(token, str) and tokens and isinstance(tokens[-1], str):
        tokens[-1] += token
    else:
        tokens.append(token)


def _parse_variable(match: re.Match[str]) -> Token:
    name = match["variable"]
    if not match["end"]:
        raise ValueError(f"the policy variable {match[0]!r} is not closed")
    if name in _CHARACTERS:
        return name
    variable = _VARIABLE.fullmatch(name)
    if variable is None:
        raise ValueError(f"{match[0]!r} is not a policy variable")
    return Variable(variable["key"].lower(), variable["default"])


def _compile(template: Template, *, arn: bool) -> re.Pattern[str]:
    if template == (Wildcard.MANY,):
        return _EVERYTHING
    if not arn:
        return re.compile(_glob(template, "."), re.DOTALL)
    segments = split_arn(template)
    if segments is None:
        return _NOTHING
    *fixed, resource = segments
    sources = [*(_glob(segment, "[^:]") for segment in fixed), _glob(resource, ".")]
    return re.compile(":".join(sources), re.DOTALL)


@lru_cache(maxsize=_RESOLVED_PATTERNS)
def _compile_resolved(template: Template, arn: bool) -> re.Pattern[str]:
    return _compile(template, arn=arn)


_EVERYTHING = re.compile(".*", re.DOTALL)
_NOTHING = re.compile(r"(?!)")


def _glob(template: Template, one: str) -> str:
    """The template as a regular expression; `one` is what `?` may stand for.

    Each part between two `*` is matched where it occurs first and that is final (an atomic group), which is as good
    as any later place and keeps the time linear in the number of `*`.
    """
    first, *others = _between_stars(template, one)
    if not others:
        return first
    *middle, last = others
    return first + "".join(f"(?>{one}*?{part})" for part in middle if part) + f"{one}*{last}"


def _between_stars(template: Template, one: str) -> Iterator[str]:
    part = ""
    for token in template:
        if token is Wildcard.MANY:
            yield part
            part = ""
        else:
            part += re.escape(token) if isinstance(token, str) else one
    yield part
