"""The table client x behaviour, as Markdown, and the same as JSON."""

from collections.abc import Mapping, Sequence

from conformance.behaviours import Behaviour, Column, Outcome

_SHOWN = {
    Outcome.PASSED: "passed",
    Outcome.FAILED: "FAILED",
    Outcome.SKIPPED: "skipped",
    Outcome.NOT_COVERED: "-",
}


def markdown(behaviours: Sequence[Behaviour], columns: Mapping[str, Column]) -> str:
    """The table; then, for what did not pass, why."""
    rows = [["behaviour", *columns]]
    rows += [
        [each.id, *(_SHOWN[column[each.id].outcome] for column in columns.values())] for each in behaviours
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    counted = {
        name: sum(cell.outcome is Outcome.PASSED for cell in column.values())
        for name, column in columns.items()
    }
    lines += [
        "",
        "  ".join(f"{name}: {number} of {len(behaviours)} passed" for name, number in counted.items()),
    ]
    lines += _notes(columns, Outcome.FAILED, "FAILED")
    lines += _notes(columns, Outcome.SKIPPED, "skipped")
    lines += _notes(columns, Outcome.NOT_COVERED, "not covered")
    return "\n".join(lines)


def document(behaviours: Sequence[Behaviour], columns: Mapping[str, Column]) -> dict[str, object]:
    """For JSON: every cell with its detail."""
    return {
        "behaviours": [
            {"id": each.id, "operation": each.operation, "text": each.text} for each in behaviours
        ],
        "clients": {
            name: {
                each: {"outcome": str(cell.outcome), "detail": cell.detail} for each, cell in column.items()
            }
            for name, column in columns.items()
        },
    }


def _notes(columns: Mapping[str, Column], outcome: Outcome, shown: str) -> list[str]:
    """A line for each reason that a client has, with the behaviours it holds for."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, column in columns.items():
        for each, cell in column.items():
            if cell.outcome is outcome and cell.detail:
                reasons.setdefault((name, cell.detail), []).append(each)
    notes = [f"{shown}: {name}: {detail} ({', '.join(ids)})" for (name, detail), ids in reasons.items()]
    return ["", *notes] if notes else []
