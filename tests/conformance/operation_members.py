"""Any operation as the installed botocore knows it, and values at the edges of what its members may be.

`members` does the same for InvokeEndpoint, and for its patterns.
"""

from collections.abc import Callable, Iterator
from itertools import cycle, islice
from typing import Any, TypeVar

import botocore.session

Test = TypeVar("Test", bound=Callable[..., Any])

_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_NAME = "aZ-9"
_BAD_NAMES = ("-a", "a-", "a_b", "a b", "aé")

_PATTERNS: dict[str, tuple[str, tuple[str, ...]]] = {
    r"\p{ASCII}*": (_PRINTABLE, ("aé",)),
    r"\A\S[\p{Print}]*\z": (_PRINTABLE, ("aé", "a\tb")),
    r"^[a-zA-Z0-9](-*[a-zA-Z0-9])*": (_NAME, _BAD_NAMES),
    r"^(https|s3)://([^/]+)/?(.*)$": (
        "s3://no-such-bucket/~",
        ("bucket/key", "http://bucket/key", "S3://b/k", "s3:///key", "s3://", "s3:/b/key"),
    ),
    r"^(?!s3:|https:)[a-zA-Z0-9!_.*'()/-]+$": ("aZ9!_.*'()/-", ("s3://a", "a b", "a:b", "a%20b", "aé")),
    r"^(?!.*\..*\.)[a-zA-Z0-9][a-zA-Z0-9-_\.]*$": ("aZ9-_", ("-a", ".a", "a.b.c", "a/b", "a b", "aé")),
}
"""For each pattern: an alphabet of values that match it (if they begin and end with its first letter; those of a
pattern that names a scheme begin with the whole alphabet), and values that do not."""


class Members:
    """Those of one operation of `sagemaker-runtime`."""

    def __init__(self, operation: str) -> None:
        service = botocore.session.get_session().get_service_model("sagemaker-runtime")
        self.operation = service.operation_model(operation)
        self._covered: set[str] = set()

    def covers(self, *names: str) -> Callable[[Test], Test]:
        """Say which members (`input.Accept`, `output.Body`) and errors (`error.ModelError`) a test is about."""
        self._covered.update(names)
        return lambda test: test

    def covered(self) -> frozenset[str]:
        return frozenset(self._covered)

    def modelled(self) -> frozenset[str]:
        """Everything that `covers` must have named."""
        names = {f"input.{name}" for name in self.operation.input_shape.members}
        names |= {f"output.{name}" for name in self.operation.output_shape.members}
        for error in self.operation.error_shapes:
            names |= {f"error.{error.name}", *(f"error.{error.name}.{member}" for member in error.members)}
        return frozenset(names)

    def limited(self) -> list[str]:
        """The input members whose values the model restricts, but for the body and for numbers."""
        return self._of_type("string")

    def numbers(self) -> list[str]:
        """The input members that are numbers."""
        return self._of_type("integer")

    def range(self, name: str) -> tuple[int, int]:
        """The least and the greatest value of a number."""
        metadata = self._metadata(name)
        return metadata["min"], metadata["max"]

    def acceptable(self, name: str) -> Iterator[str]:
        """The shortest and the longest values of a member."""
        metadata = self._metadata(name)
        alphabet, _ = _PATTERNS[metadata["pattern"]]
        shortest = len("s3://b") if "://" in alphabet else max(metadata.get("min", 0), 1)
        yield _of_length(alphabet, shortest)
        yield _of_length(alphabet, metadata["max"])

    def unacceptable(self, name: str) -> Iterator[tuple[str, str]]:
        """Values that break one rule each, and the server's words for the rule."""
        metadata = self._metadata(name)
        pattern, longest = metadata["pattern"], metadata["max"]
        alphabet, mismatches = _PATTERNS[pattern]
        yield (
            _of_length(alphabet, longest + 1),
            f"Member must have length less than or equal to {longest}",
        )
        for value in mismatches:
            yield value, f"Member must satisfy regular expression pattern: {pattern}"

    def complaint(self, name: str, value: object, rule: str) -> str:
        """The whole message about one value that breaks one rule."""
        shown = "***" if self._metadata(name).get("sensitive") else value
        key = name[0].lower() + name[1:]
        return f"1 validation error detected: Value '{shown}' at '{key}' failed to satisfy constraint: {rule}"

    def _of_type(self, type_name: str) -> list[str]:
        members = self.operation.input_shape.members
        return [name for name, shape in members.items() if shape.type_name == type_name]

    def _metadata(self, name: str) -> dict[str, Any]:
        metadata: dict[str, Any] = self.operation.input_shape.members[name].metadata
        return metadata


def _of_length(alphabet: str, length: int) -> str:
    return "".join(islice(cycle(alphabet), length - 1)) + alphabet[0]
