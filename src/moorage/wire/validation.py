"""The words in which AWS's request framework reports broken constraints.

One request may break several; they are reported together in one message.
Source of the form: captured replies of the real services.
"""

from collections.abc import Iterable, Sequence

NOT_NULL = "Member must not be null"
INTEGER = "Member must be an integer"


def at_most_long(length: int) -> str:
    return f"Member must have length less than or equal to {length}"


def at_least_long(length: int) -> str:
    return f"Member must have length greater than or equal to {length}"


def at_most(value: float) -> str:
    return f"Member must have value less than or equal to {_number(value)}"


def at_least(value: float) -> str:
    return f"Member must have value greater than or equal to {_number(value)}"


def matches(pattern: str) -> str:
    return f"Member must satisfy regular expression pattern: {pattern}"


def one_of(values: Iterable[str]) -> str:
    return f"Member must satisfy enum value set: [{', '.join(values)}]"


def violation(value: object, path: str, rule: str) -> str:
    """One broken constraint. `path` is the member as the service spells it, e.g. `tags.1.member.key`."""
    shown = "null" if value is None else f"'{value}'"
    return f"Value {shown} at '{path}' failed to satisfy constraint: {rule}"


def describe(violations: Sequence[str]) -> str:
    """The message for all the constraints that one request breaks."""
    plural = "error" if len(violations) == 1 else "errors"
    return f"{len(violations)} validation {plural} detected: {'; '.join(violations)}"


def _number(value: float) -> str:
    """All its digits, and no fraction where there is none."""
    return str(int(value)) if value == int(value) else str(value)
