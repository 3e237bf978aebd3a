"""How many instructions an invocation costs the gateway: a figure for comparing, which no other load disturbs.

Usage: python benchmarks/instructions.py [--record]

valgrind counts the instructions of hot_path.py twice, with different numbers of requests; the difference is what
the requests cost. There is no kernel in it. It measures the modules that are imported: as they are in the sources,
or compiled when `PYTHONPATH` says so (`make build/compiled`).

Two things vary between machines and are pinned: the variants that glibc and OpenSSL choose by the processor. So
SHA-256 is counted in the form for any x86-64, which takes more instructions than a server really executes: some 15 %
of the figure. What cannot be pinned is the build of Python: instructions.json has a count for each build that
was measured. `--record` writes this machine's into it.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import moorage.upstream
from bare_gateway import BODY, PATH
from harness import HERE, Effort
from signing import signed_request
from tables import Table

RECORDED = HERE / "instructions.json"
FEW, MANY = 200, 1200
TOLERANCE = 0.05
"""How much more a request may cost than what was recorded with the same build of Python."""
FOREIGN_TOLERANCE = 0.25
"""How much more than with any recorded build, when this one was not; builds differ by about a tenth."""
PINNED = {
    "PYTHONHASHSEED": "0",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX,-BMI2,-ERMS,-FSRM,-AVX_Fast_Unaligned_Load",
    "OPENSSL_ia32cap": "~0x1000020000000000:0",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="write the count into instructions.json")
    arguments = parser.parse_args()
    if not shutil.which("valgrind"):
        print("not on this machine: valgrind (Debian: apt-get install valgrind)", file=sys.stderr)
        return 2
    count = count_instructions()
    print(f"{count:,} instructions a request, {variant()}, {build()}")
    if arguments.record:
        record(count)
        return 0
    complaint = judge(count)
    print(complaint or f"within the limit of {limit()[0]:,}")
    return 1 if complaint else 0


def measure(effort: Effort) -> list[Table]:
    """Of both variants, as far as both are there; instructions do not vary, so there is one round."""
    found = {}
    for name, path in (("as in the sources", "src"), ("compiled", "build/compiled")):
        folder = HERE.parent / path
        if folder.exists():
            environment = {**os.environ, "PYTHONPATH": str(folder)}
            command = [sys.executable, str(Path(__file__))]
            out = subprocess.run(command, env=environment, capture_output=True, text=True).stdout
            found[name] = [float(out.partition(" ")[0].replace(",", ""))]
    return [
        Table(
            name="instructions",
            title="Instructions of an invocation in the gateway",
            setup="Counted by valgrind, without the kernel, and with SHA-256 as any x86-64 does it: for comparing.",
            figures={"instructions a request": found},
        )
    ]


def count_instructions() -> int:
    request = signed_request(8080, PATH, BODY)
    runs = [_start(count) for count in (FEW, MANY)]
    few, many = (_collected(run, request) for run in runs)
    return (many - few) // (MANY - FEW)


def judge(count: int) -> str:
    """Empty, or what is wrong with the count and what to do."""
    most, against = limit()
    if count <= most:
        return ""
    return (
        f"An invocation costs the gateway {count:,} instructions ({variant()}); {against}, so at most {most:,} are "
        "allowed. If that is what the change is worth, record it: python benchmarks/instructions.py --record "
        "(with PYTHONPATH=build/compiled for the compiled gateway), and commit benchmarks/instructions.json."
    )


def limit() -> tuple[int, str]:
    """The most instructions that are allowed, and why."""
    recorded = {name: counts[variant()] for name, counts in _recorded().items() if variant() in counts}
    own = recorded.get(build())
    if own is not None:
        return int(own * (1 + TOLERANCE)), f"{own:,} are recorded for {build()}"
    most = max(recorded.values())
    return int(
        most * (1 + FOREIGN_TOLERANCE)
    ), f"none are recorded for {build()}, and {most:,} for another build"


def record(count: int) -> None:
    recorded = _recorded()
    recorded.setdefault(build(), {})[variant()] = count
    RECORDED.write_text(json.dumps(recorded, indent=2, sort_keys=True) + "\n")


def variant() -> str:
    source = moorage.upstream.__file__.endswith(".py")
    return "as in the sources" if source else "compiled"


def build() -> str:
    """What of the interpreter decides over the count."""
    optimized = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    version = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{version} {platform.machine()}, {platform.python_compiler()}{', optimized' if optimized else ''}"


def _recorded() -> Any:
    return json.loads(RECORDED.read_text()) if RECORDED.exists() else {}


def _start(count: int) -> "subprocess.Popen[bytes]":
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable]
    return subprocess.Popen(
        [*command, str(HERE / "hot_path.py"), str(count)],
        env={**os.environ, **PINNED},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _collected(run: "subprocess.Popen[bytes]", request: bytes) -> int:
    out, messages = run.communicate(request, timeout=120)
    collected = re.search(rb"Collected : (\d+)", messages)
    if run.returncode or not collected:
        raise RuntimeError(f"valgrind failed:\n{(out + messages).decode(errors='replace')}")
    return int(collected[1])


if __name__ == "__main__":
    sys.exit(main())
