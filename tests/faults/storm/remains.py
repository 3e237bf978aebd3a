"""What a server may leave behind: processes, interfaces, mounts, control groups, files, descriptors."""

import hashlib
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path

from tests.faults.storm.victims import census


def interfaces() -> set[str]:
    """The network interfaces of this machine."""
    return set(os.listdir("/sys/class/net"))  # noqa: PTH208


def mounts(data_dir: Path) -> set[str]:
    """What is mounted here from or to the data directory, and every network namespace that a mount keeps."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {line for line in lines if str(data_dir) in line or " nsfs " in line}


def control_groups(data_dir: Path) -> set[str]:
    """Those of this server's instances, and those that it has tried out."""
    marker = hashlib.sha256(str(data_dir).encode()).hexdigest()[:12]
    found = set()
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        found |= {f"{directory}/{name}" for name in names if name.startswith(f"moorage-{marker}-")}
    return found


def processes(data_dir: Path) -> set[str]:
    """Those that were started for this server, and those that became our children when theirs had died."""
    found = {f"{victim.kind} {victim.pid}" for victim in census(data_dir)}
    return found | {f"orphan {pid}: {command}" for pid, state, command in children() if state != "Z"}


def children() -> list[tuple[int, str, str]]:
    """Pid, state and command line of our own children, the dead ones included."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == os.getpid():
                    command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found.append((int(process.name), fields[0], command))
    return found


def collect_dead_children(besides: int) -> None:
    """Those that we were given when their parent had died; `besides` is a process that we have started."""
    for pid, state, _ in children():
        if state == "Z" and pid != besides:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def descriptors(pid: int) -> Counter[str]:
    """How many of each kind a process has open, and its threads and dead children."""
    found: Counter[str] = Counter()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            target = os.readlink(entry.path)  # noqa: PTH115
            found[target.partition(":")[0] if not target.startswith("/") else "file"] += 1
    found["threads"] = len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == pid and fields[0] == "Z":
                    found["dead children"] += 1
    return found
