"""InvokeEndpoint as the installed botocore knows it, and values at the edges of what its members may be."""

from collections.abc import Callable, Iterator
from itertools import cycle, islice
from typing import Any, TypeVar

import botocore.session

OPERATION = (
    botocore.session.get_session().get_service_model("sagemaker-runtime").operation_model("InvokeEndpoint")
)

Test = TypeVar("Test", bound=Callable[..., Any])

_covered: set[str] = set()


def covers(*names: str) -> Callable[[Test], Test]:
    """Say which members (`input.Accept`, `output.Body`) and errors (`error.ModelError`) a test is about."""
    _covered.update(names)
    return lambda test: test


def covered() -> frozenset[str]:
    return frozenset(_covered)


def modelled() -> frozenset[str]:
    """Everything that `covers` must have named."""
    names = {f"input.{name}" for name in OPERATION.input_shape.members}
    names |= {f"output.{name}" for name in OPERATION.output_shape.members}
    for error in OPERATION.error_shapes:
        names |= {f"error.{error.name}", *(f"error.{error.name}.{member}" for member in error.members)}
    return frozenset(names)


def limited() -> list[str]:
    """The input members whose values the model restricts, but for the body."""
    return [name for name, shape in OPERATION.input_shape.members.items() if shape.type_name == "string"]


_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_NAME = "aZ-9"
_BAD_NAMES = ("-a", "a-", "a_b", "a b", "aé")

_PATTERNS: dict[str, tuple[str, tuple[str, ...]]] = {
    r"\p{ASCII}*": (_PRINTABLE, ("aé",)),
    r"\A\S[\p{Print}]*\z": (_PRINTABLE, ("aé", "a\tb")),
    r"^[a-zA-Z0-9](-*[a-zA-Z0-9])*": (_NAME, _BAD_NAMES),
    r"^[a-zA-Z0-9]([\-a-zA-Z0-9]*[a-zA-Z0-9])?$": (_NAME, _BAD_NAMES),
    r"^(NEW_SESSION)$|^[a-zA-Z0-9](-*[a-zA-Z0-9])*$": (_NAME, (*_BAD_NAMES, "OLD_SESSION", "NEW_SESSIONS")),
    ".*": ("aé☃", ()),
}
"""For each pattern: an alphabet of values that match it (if they begin and end with its first letter), and values
that do not."""


def acceptable(name: str) -> Iterator[str]:
    """The shortest and the longest values of a member."""
    shape = OPERATION.input_shape.members[name]
    alphabet, _ = _PATTERNS[shape.metadata["pattern"]]
    yield _of_length(alphabet, max(shape.metadata.get("min", 0), 1))
    yield _of_length(alphabet, shape.metadata["max"])


def unacceptable(name: str) -> Iterator[tuple[str, str]]:
    """Values that break one rule each, and the server's words for the rule."""
    shape = OPERATION.input_shape.members[name]
    pattern, longest = shape.metadata["pattern"], shape.metadata["max"]
    alphabet, mismatches = _PATTERNS[pattern]
    yield (
        _of_length(alphabet, longest + 1),
        f"Member must have length less than or equal to {longest}",
    )
    for value in mismatches:
        yield value, f"Member must satisfy regular expression pattern: {pattern}"


def complaint(name: str, value: str, rule: str) -> str:
    """The whole message about one value that breaks one rule."""
    shape = OPERATION.input_shape.members[name]
    shown = "***" if shape.metadata.get("sensitive") else value
    key = name[0].lower() + name[1:]
    return f"1 validation error detected: Value '{shown}' at '{key}' failed to satisfy constraint: {rule}"


def _of_length(alphabet: str, length: int) -> str:
    return "".join(islice(cycle(alphabet), length - 1)) + alphabet[0]
