"""The processes of one server, by kind, and the end of one of them."""

import os
import random
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moorage.modelhost.worker import PROCESS_NAME

WEIGHTS: Mapping[str, float] = {
    "gateway": 3,
    "controller": 3,
    "S3": 2,
    "outbound": 2,
    "front": 2,
    "worker": 3,
    "chain": 1.5,
}
"""How often each kind is killed, beside the others. `chain` is what starts an instance, and bubblewrap."""

SPARED_SECONDS = 8.0
SHARE_OF_SPARED = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    pid: int
    kind: str
    start_time: str
    age_seconds: float


def census(data_dir: Path, *, supervisor: int = 0) -> list[Victim]:
    """Every living process that was started for this data directory, but the one that supervises."""
    found = (_look(int(entry), str(data_dir)) for entry in os.listdir("/proc") if entry.isdigit())  # noqa: PTH208
    return [victim for victim in found if victim is not None and victim.pid != supervisor]


def choose(victims: list[Victim], chance: random.Random) -> Victim | None:
    """One of the kinds that there are, by `WEIGHTS`, then one of that kind. Most may live for some seconds: else,
    after some kills, none would ever live long enough to serve."""
    by_kind: dict[str, list[Victim]] = {}
    for victim in sorted(victims, key=lambda each: each.pid):
        own_chance = random.Random(f"{victim.pid} {victim.start_time}")
        is_spared = own_chance.random() < SHARE_OF_SPARED and victim.age_seconds < own_chance.uniform(
            0, SPARED_SECONDS
        )
        if victim.kind in WEIGHTS and not is_spared:
            by_kind.setdefault(victim.kind, []).append(victim)
    if not by_kind:
        return None
    kinds = sorted(by_kind)
    (kind,) = chance.choices(kinds, [WEIGHTS[each] for each in kinds])
    return chance.choice(by_kind[kind])


def kill(victim: Victim) -> bool:
    """SIGKILL exactly that process; False if it had gone."""
    try:
        descriptor = os.pidfd_open(victim.pid)
    except OSError:  # as it goes, the kernel has several
        return False
    try:
        if _start_time(victim.pid) != victim.start_time:
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except (OSError, IndexError):
        return False
    finally:
        os.close(descriptor)
    return True


def _look(pid: int, data_dir: str) -> Victim | None:
    directory = Path("/proc", str(pid))
    try:
        environ = (directory / "environ").read_bytes()
        command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        if pid == os.getpid() or not command or data_dir.encode() not in environ + command.encode():
            return None
        variables = dict(
            line.decode(errors="replace").split("=", 1) for line in environ.split(b"\0") if b"=" in line
        )
        start_time = _start_time(pid)
        name = (directory / "comm").read_bytes().strip()
    except (OSError, IndexError):
        return None
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(start_time) / os.sysconf("SC_CLK_TCK")
    return Victim(pid=pid, kind=_kind(variables, command, name), start_time=start_time, age_seconds=age)


def _kind(variables: Mapping[str, str], command: str, name: bytes) -> str:
    if "MOORAGE_INSTANCE_ID" in variables:
        if name == PROCESS_NAME:
            return "worker"
        if "-m moorage.modelhost" in command and "bwrap" not in command.split(" ", 1)[0]:
            return "front"
        return "chain"
    return variables.get("MOORAGE_PROCESS", "supervisor").partition(" ")[0]


def _start_time(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
