"""How long the first prediction takes on a machine that has the packages, and what an idle server holds in memory.

Usage: python benchmarks/first_use.py [--cold-compiler]

A clone of this repository runs `make demo` twice, with a cache of its own for the built embedded S3; with
--cold-compiler, Go's cache of compiled packages is empty, too. Then a server is started twice on one data directory,
for at the first start it has a database to make; 8 s later the PSS of its processes is added up: what they hold, with
pages that they share counted once. Pages shared with processes of others (libpython) count less than on a machine of
its own: give it one.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IDLE_SECONDS = 8.0
FIRST_PREDICTION = "CSV :"
"""How the demo's line begins that shows it."""


def first_prediction(clone: Path, environment: dict[str, str]) -> float:
    """Seconds from `make demo` until the demo shows a prediction."""
    started = time.monotonic()
    found = None
    with subprocess.Popen(
        ["make", "demo"], cwd=clone, env=environment, stdout=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if line.startswith(FIRST_PREDICTION):
                found = time.monotonic() - started
    if demo.returncode or found is None:
        sys.exit("make demo has failed")
    return found


def idle_memory(python: Path, data_dir: Path) -> dict[str, float]:
    """MiB of each process of a server that has just been started."""
    command = [str(python), "-m", "moorage", "serve", "--port", "0", "--data-dir", str(data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        server.stdout.readline()
        time.sleep(IDLE_SECONDS)
        held = {}
        for directory in Path("/proc").iterdir():
            if directory.name.isdigit() and str(data_dir).encode() in _read(directory / "environ") + _read(
                directory / "cmdline"
            ):
                rollup = _read(directory / "smaps_rollup").decode()
                pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
                words = _read(directory / "cmdline").decode().split("\0")
                held[words[2] if words[1] == "-m" else Path(words[0]).name] = pss / 1024
        server.send_signal(signal.SIGTERM)
    return held


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cold-compiler", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        clone = Path(temporary, "clone")
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        home = Path.home() / ".cache"
        environment = {
            **os.environ,
            "XDG_CACHE_HOME": str(Path(temporary, "cache")),
            "UV_CACHE_DIR": str(home / "uv"),
            "PIP_CACHE_DIR": str(home / "pip"),
            "GOCACHE": str(Path(temporary, "go") if arguments.cold_compiler else home / "go-build"),
        }
        for when in ("first", "second"):
            print(f"{when} `make demo`: {first_prediction(clone, environment):.1f} s to the first prediction")
        for when in ("first", "second"):
            held = idle_memory(clone / ".venv" / "bin" / "python", Path(temporary, "data"))
            parts = ", ".join(f"{name} {size:.1f}" for name, size in sorted(held.items()))
            print(f"idle after the {when} start: {sum(held.values()):.1f} MiB PSS ({parts})")
        shutil.rmtree(clone)


if __name__ == "__main__":
    main()
