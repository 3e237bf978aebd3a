"""What all benchmarks do alike: start processes on cores of their own, load them with wrk, and take turns."""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tables import Table, markdown

HERE = Path(__file__).parent
BUILD = HERE.parent / "build"
SUBJECT_CORE, LOAD_CORE = 0, 1
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long to measure: so many rounds, so many seconds for each contender in each."""

    rounds: int = 5
    seconds: int = 4
    connections: int = 32


@dataclass(frozen=True)
class Load:
    """What wrk saw in one run."""

    requests: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float


def run_alone(document: str, measure: Callable[[Effort], list[Table]]) -> int:
    """The command line of a benchmark that is run by itself."""
    parser = argparse.ArgumentParser(
        description=document, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Effort()
    parser.add_argument("--rounds", type=int, default=default.rounds)
    parser.add_argument("--seconds", type=int, default=default.seconds)
    parser.add_argument("--connections", type=int, default=default.connections)
    arguments = parser.parse_args()
    if missing := missing_tools():
        print(missing, file=sys.stderr)
        return 2
    for table in measure(Effort(**vars(arguments))):
        print(f"\n{markdown(table)}", flush=True)
    return 0


def missing_tools() -> str:
    """What to install before anything can be measured; empty if nothing is missing."""
    missing = [tool for tool in ("wrk", "taskset") if not find(tool)]
    names = ", ".join(missing)
    return f"not on this machine: {names} (Debian: apt-get install wrk util-linux)" if missing else ""


def take_turns(
    contenders: Sequence[str], rounds: int, measure: Callable[[str], T], *, warm_up: bool = False
) -> dict[str, list[T]]:
    """What each of them comes to in each round. They take turns, so that the machine's mood meets all of them, and
    each round begins with another, so that nobody always follows the same one."""
    found: dict[str, list[T]] = {name: [] for name in contenders}
    if warm_up:
        for name in contenders:
            measure(name)
    for number in range(rounds):
        first = number % len(contenders)
        for name in [*contenders[first:], *contenders[:first]]:
            found[name].append(measure(name))
    return found


@contextmanager
def process(
    *argv: object,
    core: int | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    quiet: bool = False,
    piped: bool = False,
    stop_seconds: float = 20.0,
) -> Iterator["subprocess.Popen[str]"]:
    """A process with all that it starts, which are gone afterwards. With `quiet` its messages are kept from view,
    with `piped` its standard output is the caller's to read."""
    pinned = ["taskset", "-c", str(core)] if core is not None else []
    child = subprocess.Popen(
        [*pinned, *map(str, argv)],
        env={**os.environ, **(environment or {})},
        cwd=folder,
        stdout=subprocess.PIPE if piped else subprocess.DEVNULL if quiet else None,
        stderr=subprocess.DEVNULL if quiet else None,
        text=True,
    )
    try:
        yield child
    finally:
        family = descendants(child.pid)
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(stop_seconds)
        for pid in family:
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def wrk(
    url: str,
    *,
    body: str,
    headers: Mapping[str, str],
    seconds: int,
    connections: int,
    core: int | None = LOAD_CORE,
    expected: str | None = None,
) -> Load:
    """Load `url` for a while. Any error ends the benchmark: it has no figures. With `expected`, every answer's body
    must be that; else only the statuses are looked at, which costs the load generator less."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(_script(body, headers, expected))
        file.flush()
        pinned = ["taskset", "-c", str(core)] if core is not None else []
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", file.name, url]
        out = subprocess.run([*pinned, *command], capture_output=True, text=True, check=True).stdout
    found = json.loads(out.rpartition("FIGURES ")[2])
    if found["errors"] or found["wrong"] or not found["requests"]:
        raise SystemExit(f"the run had errors, so its figures count for nothing:\n{url}\n{out}")
    per_second = found["requests"] / found["microseconds"] * 1e6
    return Load(found["requests"], per_second, found["p50"] / 1000, found["p99"] / 1000)


_DONE = """
local threads = {}
function setup(thread) table.insert(threads, thread) end
function done(summary, latency)
    local wrong, e = 0, summary.errors
    for _, thread in ipairs(threads) do wrong = wrong + (thread:get("wrong") or 0) end
    io.write(string.format(
        'FIGURES {"requests": %d, "microseconds": %d, "p50": %f, "p99": %f, "errors": %d, "wrong": %d}',
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
        e.connect + e.read + e.write + e.status + e.timeout, wrong))
end
"""
_CHECK = """
wrong = 0
function response(status, headers, body)
    if status ~= 200 or body ~= expected then wrong = wrong + 1 end
end
"""


def _script(body: str, headers: Mapping[str, str], expected: str | None) -> str:
    lines = ['wrk.method = "POST"', f"wrk.body = [==[{body}]==]"]
    lines += [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
    if expected is not None:
        lines += [f"expected = [==[{expected}]==]", _CHECK]
    return "\n".join([*lines, _DONE])


def connections_of(count: int) -> str:
    return f"{count} connection" + ("s" if count > 1 else "")


def post(url: str, body: str, headers: Mapping[str, str], *, timeout: float = 10.0) -> str:
    request = urllib.request.Request(url, body.encode(), dict(headers))
    with urllib.request.urlopen(request, timeout=timeout) as reply:
        text: str = reply.read().decode()
        return text


def wait_until_answered(url: str, body: str, headers: Mapping[str, str], *, seconds: float = 90.0) -> str:
    """The first answer, once there is one."""
    end = time.monotonic() + seconds
    while True:
        try:
            return post(url, body, headers)
        except (OSError, urllib.error.URLError):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def wait_for(port: int) -> None:
    end = time.monotonic() + 15
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def find(tool: str) -> str | None:
    """Where a program is, in the environment of the benchmarks or on the machine."""
    path = f"{BUILD / 'bench/bin'}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return shutil.which(tool, path=path)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def descendants(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


def is_running(pid: int) -> bool:
    return bool(command_line(pid))


def command_line(pid: int) -> str:
    """Empty if the process has gone, or is about to."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")
    except OSError:
        return ""


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024
