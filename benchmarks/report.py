"""The report of a run: report.md and a plot for each table that compares, from results.json beside them.

Usage: build/bench/bin/python benchmarks/report.py DIRECTORY
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot, ticker

from tables import Table, markdown

OURS, THEIRS = "#0b6e8a", "#b8c4cc"
OUR_NAMES = ("moorage", "1 gateway", "2 gateways")


def main(folder: Path) -> None:
    report = json.loads((folder / "results.json").read_text())
    for stale in folder.glob("*.png"):
        stale.unlink()
    lines = [
        "# Results of the benchmarks",
        "",
        "Written by `make bench`; what is compared, and how, is in docs/performance.md. Medians over the rounds, and",
        "the least and the most; ratios are within a round. Only ratios within one run mean anything.",
        "",
        f"Taken {report['taken']}, the gateway {'compiled' if report['compiled'] else 'as in the sources'}.",
        "",
        *_list("Machine", report["machine"]),
        *_list("Versions", report["versions"]),
    ]
    for each in report["tables"]:
        table = Table(**each)
        lines.append(markdown(table))
        if table.base:
            plot(table, folder / f"{table.name}.png")
            lines += [f"![{table.title}]({table.name}.png)", ""]
    (folder / "report.md").write_text("\n".join(lines).rstrip() + "\n")


def plot(table: Table, file: Path) -> None:
    """A panel for each figure: bars of the medians, whiskers from the least to the most."""
    names = table.contenders[::-1]
    panels = list(table.figures.items())
    size = (3.2 * len(panels) + 1.6, 0.34 * len(names) + 0.9)
    drawing, axes = pyplot.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for axis, (figure, values) in zip(axes[0], panels, strict=True):
        rounds = [values.get(name, [0.0]) for name in names]
        medians = [statistics.median(each) for each in rounds]
        whiskers = [
            [median - min(each) for median, each in zip(medians, rounds, strict=True)],
            [max(each) - median for median, each in zip(medians, rounds, strict=True)],
        ]
        colors = [OURS if name in OUR_NAMES else THEIRS for name in names]
        axis.barh(names, medians, xerr=whiskers, color=colors, error_kw={"elinewidth": 1, "capsize": 2})
        axis.set_title(figure, fontsize=9)
        axis.xaxis.set_major_locator(ticker.MaxNLocator(4))
        axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    drawing.tight_layout()
    drawing.savefig(file, dpi=80)
    pyplot.close(drawing)


def _list(title: str, values: dict[str, Any]) -> list[str]:
    return [f"{title}:", "", *(f"- {name}: {value}" for name, value in values.items()), ""]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
