"""What went wrong with an instance, in words for people."""

import signal
from collections.abc import Mapping, Sequence

from moorage.launchers.base import InstanceSpec
from moorage.launchers.lifecycle import PingOutcome
from moorage.launchers.ping import PingResult

MOST_CHARACTERS = 900
"""An endpoint's FailureReason has 1024; the controller puts a few words before ours."""


def container(spec: InstanceSpec) -> str:
    return f'The container "{spec.container_hostname}" for production variant {spec.variant_name}'


def exit_phrase(returncode: int) -> str:
    """`exited with status 3`, `was killed by signal 9 (SIGKILL)`; `returncode` as `subprocess` has it."""
    if returncode >= 0:
        return f"exited with status {returncode}"
    try:
        name = f" ({signal.Signals(-returncode).name})"
    except ValueError:
        name = ""
    return f"was killed by signal {-returncode}{name}"


def memory_phrase(
    returncode: int, *, kernel_killed: bool, log_tail: Sequence[str], limit_reached: int = 0
) -> str:
    """Why it may have died, if memory is a likely answer; else empty. `limit_reached`: the limit in bytes at which
    the kernel killed a process of it, or 0."""
    if limit_reached:
        return (
            f" — it reached its limit of {limit_reached} bytes of memory (setting container_max_memory_bytes)"
        )
    if returncode == -signal.SIGKILL and kernel_killed:
        return " — the kernel's out-of-memory killer was active"
    if returncode != 0 and any(line.startswith("MemoryError") for line in log_tail):
        return " — it ran out of memory (MemoryError)"
    return ""


def ping_phrase(
    result: PingResult, *, host: str, port: int, timeout_seconds: float, listening: Mapping[int, set[str]]
) -> str:
    """Why the container is not healthy, from its last ping and the ports it listens on."""
    match result.outcome:
        case PingOutcome.REFUSED:
            return f"it did not open port {port}{_elsewhere(host, port, listening)}"
        case PingOutcome.SILENT:
            return f"it did not answer /ping within {timeout_seconds:g} seconds"
        case PingOutcome.FOREIGN:
            return f"another program than this container answers on port {port}"
        case PingOutcome.WRONG:
            body = f" ({result.detail})" if result.detail else ""
            return f"it answered /ping with {result.status}{body}"
        case _:
            return "it answered /ping with something that is not HTTP, or closed the connection"


def _elsewhere(host: str, port: int, listening: Mapping[int, set[str]]) -> str:
    if port in listening:
        return f" on {host}, only on another address"
    if not listening:
        return ""
    ports = [str(other) for other in sorted(listening)[:5]]
    noun = "port" if len(ports) == 1 else "ports"
    return f" but listens on {noun} {', '.join(ports)}; the port to use is in SAGEMAKER_BIND_TO_PORT"


def compose(what: str, *, log_tail: Sequence[str], log_file: str) -> str:
    """The whole text: what happened, the last lines of the log as far as they fit, and where the log is."""
    where = f"Log: {log_file[-300:]}"
    room = MOST_CHARACTERS - len(where) - 1
    text = what if len(what) <= room - 60 else what[: room - 61] + "…"
    heading = "\nLast lines of its log:\n"
    room -= len(text) + len(heading)
    kept: list[str] = []
    for line in reversed(log_tail):
        shown = line if kept or len(line) < room else line[: max(room - 2, 0)] + "…"
        if len(shown) + 1 > room:
            break
        kept.insert(0, shown)
        room -= len(shown) + 1
    return text + (heading + "\n".join(kept) if kept else "") + f"\n{where}"
