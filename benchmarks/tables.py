"""What the benchmarks find: a value for each round, for each contender, for each figure; and how it is shown."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Table:
    name: str
    """One word, for file names."""
    title: str
    setup: str
    """How it was measured, in a sentence or two."""
    figures: dict[str, dict[str, list[float]]]
    """For each figure (with its unit) and each contender: the values of the rounds."""
    base: str = ""
    """The contender that the others are compared with, round by round."""
    compared: list[str] = field(default_factory=list)
    """The figures of which the ratio to the base is shown."""
    absent: dict[str, str] = field(default_factory=dict)
    """Contenders that could not be measured, and why."""

    @property
    def contenders(self) -> list[str]:
        return list(dict.fromkeys(name for values in self.figures.values() for name in values))

    def ratios(self, figure: str, contender: str) -> list[float]:
        """To the base, within each round."""
        values = self.figures[figure]
        return [
            mine / base
            for mine, base in zip(values.get(contender, []), values.get(self.base, []), strict=False)
        ]


def markdown(table: Table) -> str:
    lines = [f"## {table.title}", "", *_wrapped(table.setup), ""]
    if len(table.contenders) == 1:
        rows = [[figure, spread(values[table.contenders[0]])] for figure, values in table.figures.items()]
        lines += _grid(["", "median (least to most)"], rows)
    else:
        head = [""]
        for figure in table.figures:
            head.append(figure)
            if figure in table.compared:
                head.append(f"x {table.base}")
        lines += _grid(head, [_row(table, contender) for contender in table.contenders])
    for contender, why in table.absent.items():
        lines += ["", f"Absent: {contender} ({why})."]
    return "\n".join(lines) + "\n"


def spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    text = number(statistics.median(values))
    return text if len(values) == 1 else f"{text} ({number(min(values))} to {number(max(values))})"


def number(value: float) -> str:
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"


def _row(table: Table, contender: str) -> list[str]:
    cells = [contender]
    for figure, values in table.figures.items():
        cells.append(spread(values.get(contender, [])))
        if figure in table.compared:
            cells.append(spread(table.ratios(figure, contender)))
    return cells


def _grid(head: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]


def _wrapped(text: str, width: int = 118) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines
