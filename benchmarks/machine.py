"""What a run was on: figures of another machine, or of other versions, are other figures."""

import json
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from harness import BUILD, find

OURS = ("uvloop", "httptools", "uvicorn", "starlette", "sqlalchemy", "botocore")
SERVERS = ("litserve", "bentoml", "mlserver", "ray")
VERSION_COMMANDS = {
    "nginx": ("-v",),
    "haproxy": ("-v",),
    "envoy": ("--version",),
    "wrk": ("-v",),
    "valgrind": ("--version",),
}


def machine() -> dict[str, str]:
    meminfo = Path("/proc/meminfo").read_text()
    total = re.search(r"MemTotal:\s+(\d+) kB", meminfo)
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(total[1]) / 2**20:.0f} GiB" if total else "unknown",
        "kernel": f"{platform.system()} {platform.release()}",
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "load before the run": " ".join(f"{each:.2f}" for each in os.getloadavg()),
    }


def versions() -> dict[str, str]:
    """Of everything that takes part and is there."""
    found = {
        "moorage": metadata.version("moorage") + _commit(),
        "python": f"{platform.python_version()} ({platform.python_compiler()})",
    }
    found |= {name: metadata.version(name) for name in OURS}
    for tool, options in VERSION_COMMANDS.items():
        if version := _version_of(tool, options):
            found[tool] = version
    for server in SERVERS:
        python = BUILD / f"bench-{server}/bin/python"
        if python.exists():
            found[server] = _version_in(python, server)
    return found


def _processor() -> str:
    name = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return name[1].strip() if name else platform.machine()


def _version_of(tool: str, options: tuple[str, ...]) -> str:
    """Its version number, out of whatever it says first."""
    path = find(tool)
    if path is None:
        return ""
    run = subprocess.run([path, *options], capture_output=True, text=True)
    version = re.search(r"\d+\.\d+(\.\d+)?(-[\w+.~]+)?", run.stdout + run.stderr)
    return version[0] if version else "unknown"


def _version_in(python: Path, package: str) -> str:
    code = "import importlib.metadata, json, sys; print(json.dumps(importlib.metadata.version(sys.argv[1])))"
    out = subprocess.run([python, "-c", code, package], capture_output=True, text=True, check=True).stdout
    version: str = json.loads(out)
    return version


def _commit() -> str:
    command = ["git", "-C", str(BUILD.parent), "describe", "--always", "--dirty", "--exclude", "*"]
    run = subprocess.run(command, capture_output=True, text=True)
    return f" ({run.stdout.strip()})" if run.returncode == 0 else ""


if __name__ == "__main__":
    print(json.dumps({"machine": machine(), "versions": versions()}, indent=2))
    sys.exit(0)
