"""The list of behaviours (behaviours.toml), and what a client says of each."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """The client can show it, but not with this target."""
    NOT_COVERED = "not covered"
    """The client does not speak of it, or its client.toml says why it cannot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    id: str
    operation: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One client and one behaviour."""

    outcome: Outcome
    detail: str = ""


Column = Mapping[str, Cell]
"""What one client says, by the behaviours' ids. Complete: what it leaves out is NOT_COVERED."""


def load(path: Path) -> tuple[Behaviour, ...]:
    """The list, in the order of the table's rows."""
    return tuple(Behaviour(**each) for each in tomllib.loads(path.read_text())["behaviour"])
