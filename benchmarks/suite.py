"""All benchmarks of a run, as one report: benchmarks/results/report.md, with its plots and the values of all rounds.

Usage: python benchmarks/suite.py [--quick] [--only NAME ...] [--results DIRECTORY]

`make bench` runs it with everything installed, in 20 minutes at most; `make bench-quick`, in two, measures enough to
see that the benchmarks work, and writes to build/bench-quick. Nothing else should run on the machine meanwhile.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import async_queue
import gateway
import iam
import instructions
import machine
import servers
import streaming
import workers
from harness import BUILD, HERE, Effort, missing_tools
from tables import Table, markdown

FULL = Effort(rounds=5, seconds=3)
QUICK = Effort(rounds=2, seconds=1)
REPORT_PYTHON = BUILD / "bench/bin/python"


def _async(effort: Effort) -> list[Table]:
    """What it accepts is drained as well, which takes many times as long."""
    return async_queue.measure(
        async_queue.Plan(effort=replace(effort, rounds=3, seconds=1), queued=100_000, gigabytes=1.0)
    )


PROGRAMS: dict[str, Callable[[Effort], list[Table]]] = {
    "gateway": gateway.measure,
    "workers": workers.measure,
    "servers": servers.measure,
    "streaming": streaming.measure,
    "async": _async,
    "iam": iam.measure,
    "instructions": instructions.measure,
}
IN_QUICK: dict[str, Callable[[Effort], list[Table]]] = {
    **{name: PROGRAMS[name] for name in ("gateway", "workers", "streaming", "iam")},
    "servers": lambda effort: servers.measure(replace(effort, rounds=1), among=servers.QUICK),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=sorted(PROGRAMS))
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args()
    if missing := missing_tools():
        print(missing, file=sys.stderr)
        return 2
    programs = IN_QUICK if arguments.quick else PROGRAMS
    results = arguments.results or (BUILD / "bench-quick" if arguments.quick else HERE / "results")
    started = datetime.now(UTC)
    report = {
        "taken": f"{started:%Y-%m-%d %H:%M} UTC",
        "machine": machine.machine(),
        "versions": machine.versions(),
        "compiled": instructions.variant() == "compiled",
        "tables": [],
    }
    for name in arguments.only or programs:
        begun = time.monotonic()
        tables = programs[name](QUICK if arguments.quick else FULL)
        for table in tables:
            print(f"\n{markdown(table)}", flush=True)
        print(f"({name} took {time.monotonic() - begun:.0f} s)", flush=True)
        report["tables"] += [asdict(table) for table in tables]
    write(report, results)
    return 0


def write(report: dict[str, object], results: Path) -> None:
    results.mkdir(parents=True, exist_ok=True)
    (results / "results.json").write_text(json.dumps(_short(report), indent=1, ensure_ascii=False) + "\n")
    if REPORT_PYTHON.exists():
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run([REPORT_PYTHON, HERE / "report.py", results], env=environment, check=True)
    else:
        print("no report without matplotlib; make build/bench", file=sys.stderr)


def _short(value: object) -> object:
    """Numbers with as many digits as they are worth."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: _short(each) for name, each in value.items()}
    return [_short(each) for each in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
