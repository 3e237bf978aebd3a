"""What this server does with each operation and member that the installed botocore knows.

The decisions are in `api_coverage.toml`, made by people; the operations and members are botocore's. What botocore
has and nobody has decided on is shown as undecided.
"""

import json
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from re import fullmatch
from typing import Any

import botocore
import botocore.session
from botocore.model import OperationModel, Shape

UNDECIDED = "undecided"
_REFUSED = "refused"
_SIDES = ("input", "output")
_HEAD = """# API coverage

What this server does with each operation and member of the services that it speaks. `moorage api-coverage` prints
this page for the botocore that is installed, and `--json` the same for machines; a test compares the two.

* **works**: as on AWS; of a reply: it is given
* **stored**: checked and kept, and without effect yet
* **refused**: the operation, or a request that has the member, is answered with an error that says so
* **absent**: of a reply: never given
* **undecided**: botocore knows it, and nobody here has decided on it

A row holds for the members below it that have no rows. [Deviations](deviations.md) says more of most of them.
"""

Decisions = Mapping[str, Any]
"""By service, and then by operation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An operation, or one of its members: `member` is its path, and empty for the operation itself."""

    service: str
    operation: str
    side: str = ""
    member: str = ""
    status: str
    note: str = ""
    inherited: bool = False
    """It has what was decided for a member above it."""


def read_decisions() -> Decisions:
    return tomllib.loads((files("moorage.cli") / "api_coverage.toml").read_text())


def coverage(decisions: Decisions) -> Iterator[Entry]:
    """Every operation and member of the services that there are decisions for, in botocore's order."""
    for service, decided in decisions.items():
        model = botocore.session.get_session().get_service_model(service)
        for name in model.operation_names:
            if fullmatch(decided["operations"], name):
                yield from _of_operation(service, model.operation_model(name), decided.get(name))


def superfluous(decisions: Decisions) -> list[str]:
    """The decisions on what botocore does not have."""
    known = {(entry.service, entry.operation, entry.side, entry.member) for entry in coverage(decisions)}
    return [
        " ".join(place)
        for service, decided in decisions.items()
        for operation in decided.keys() - {"operations"}
        for place in _places(service, operation, decided[operation])
        if place not in known
    ]


def _places(service: str, operation: str, decided: Decisions) -> Iterator[tuple[str, str, str, str]]:
    yield service, operation, "", ""
    for side in _SIDES:
        for member in decided.get(side, ()):
            yield service, operation, side, member


def _of_operation(service: str, operation: OperationModel, decided: Decisions | None) -> Iterator[Entry]:
    own = _split((decided or {}).get("decision", UNDECIDED))
    yield Entry(service=service, operation=operation.name, status=own[0], note=own[1])
    if decided is None or own[0] == _REFUSED:
        return
    for side, shape in zip(_SIDES, (operation.input_shape, operation.output_shape), strict=True):
        statuses = decided.get(side, {})
        for member, text, inherited in _of_members(shape, "", statuses, UNDECIDED):
            status, note = _split(text)
            yield Entry(
                service=service,
                operation=operation.name,
                side=side,
                member=member,
                status=status,
                note="" if inherited else note,
                inherited=inherited,
            )


def _of_members(
    shape: Shape | None, path: str, decided: Mapping[str, str], above: str, within: tuple[str, ...] = ()
) -> Iterator[tuple[str, str, bool]]:
    """Each member's path, decision, and whether the decision is that of the member above."""
    while shape is not None and shape.type_name in ("list", "map"):
        shape = shape.member if shape.type_name == "list" else shape.value
    if shape is None or shape.type_name != "structure" or shape.name in within:
        return
    apart = any(known.startswith(path) for known in decided)
    for name, member in shape.members.items():
        here = f"{path}{name}"
        inherits = here not in decided and not apart and above != UNDECIDED
        status = above if inherits else decided.get(here, UNDECIDED)
        yield here, status, inherits
        yield from _of_members(member, f"{here}.", decided, status, (*within, shape.name))


def _split(text: str) -> tuple[str, str]:
    status, _, note = text.partition(": ")
    return status, note


# --- Shown ---------------------------------------------------------------------------------------------


def show(*, as_json: bool) -> int:
    """Print it as a Markdown page, or as JSON."""
    entries = list(coverage(read_decisions()))
    if as_json:
        print(json.dumps({"botocore": botocore.__version__, "entries": [asdict(entry) for entry in entries]}))
    else:
        print(markdown(entries), end="")
    return 0


def markdown(entries: Sequence[Entry]) -> str:
    parts = [_HEAD]
    for service in dict.fromkeys(entry.service for entry in entries):
        own = [entry for entry in entries if entry.service == service]
        parts.append(f"## {service}\n\n{_summary(own)}\n")
        served = [entry for entry in own if not entry.member and entry.status != _REFUSED]
        parts += [_section(operation, own) for operation in served]
        if refused := [entry.operation for entry in own if not entry.member and entry.status == _REFUSED]:
            parts.append(
                "### Operations that are refused\n\n" + "\n".join(f"* {name}" for name in refused) + "\n"
            )
    return "\n".join(parts)


def _summary(entries: Sequence[Entry]) -> str:
    operations = Counter(entry.status for entry in entries if not entry.member)
    members = Counter(entry.status for entry in entries if entry.side == "input")
    return f"Operations: {_counts(operations)}. Members of the requests that are served: {_counts(members)}."


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))


def _section(operation: Entry, entries: Sequence[Entry]) -> str:
    rows = [
        f"| {entry.side} | {entry.member} | {entry.status} | {entry.note} |"
        for entry in entries
        if entry.operation == operation.operation and entry.member and not entry.inherited
    ]
    head = f"### {operation.operation}: {operation.status}\n"
    if not rows:
        return head
    return "\n".join([head, "| of the | member | status | |", "|---|---|---|---|", *rows, ""])
