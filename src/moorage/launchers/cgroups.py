"""Control groups: what a whole instance may use, and which processes it has, whatever they do.

A limit of the kind `setrlimit` sets holds for one process and for what it allocates. A control group holds for all
processes of an instance together and counts everything: files in memory, `/dev/shm`, shared maps. It also answers
who belongs to an instance: no process leaves its group by itself.

Both versions are used as they are found. A group is made for each start of an instance, beside the server's own; its
first process enters it before it runs anything else. A group of processes that are gone keeps nothing and hurts
nobody; what a server that was killed left behind is removed at the next start (`Cgroups.sweep`).
"""

import errno
import hashlib
import os
import signal
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

CONTROLLERS: Final = ("memory", "pids", "cpu")
_SERVER: Final = "moorage-server"
_SERVER_CPU_WEIGHT: Final = "1000"
"""Ten instances' worth: the gateway is one process however many instances are busy."""
_REMOVAL_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """Where the groups of some controllers are made: in the server's own group, `directory`; `top` is the outermost
    group of the hierarchy that can be seen."""

    version: int
    directory: Path
    top: Path
    controllers: tuple[str, ...]


def find_hierarchies(membership: str, mounts: str) -> tuple[Hierarchy, ...]:
    """The hierarchies that have the controllers we use, from `/proc/self/cgroup` and `/proc/self/mountinfo`.

    Version 2 is named with no controllers: which it offers is in its files.
    """
    groups = {}
    for line in membership.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            groups[name] = path
    found: dict[Path, Hierarchy] = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        root, mount_point = before.split()[3:5]
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2" and "" in groups:
            directory = _below(mount_point, root, groups[""])
            hierarchy = Hierarchy(version=2, directory=directory, top=Path(mount_point), controllers=())
            found.setdefault(directory, hierarchy)
        elif kind == "cgroup":
            offered = tuple(name for name in CONTROLLERS if name in options.split(",") and name in groups)
            if offered:
                directory = _below(mount_point, root, groups[offered[0]])
                hierarchy = Hierarchy(
                    version=1, directory=directory, top=Path(mount_point), controllers=offered
                )
                found.setdefault(directory, hierarchy)
    return tuple(found.values())


def _below(mount_point: str, root: str, group: str) -> Path:
    """The directory of a group. `root` is the group at the mount point: not `/` where a container was given a
    part."""
    inside = group.removeprefix(root) if root != "/" else group
    return Path(mount_point + ("/" + inside.strip("/") if inside.strip("/") else ""))


def limit_files(version: int, *, memory_bytes: int, processes: int) -> Mapping[str, Mapping[str, str]]:
    """What is written to which file, by controller. 0: no limit. Swap counts as memory where the kernel counts it.
    Of the processor every instance has the same share, which is what the kernel gives by itself."""
    memory, pids = str(memory_bytes), str(processes)
    if version == 1:
        limits = {
            "memory": {
                "memory.limit_in_bytes": memory,
                "memory.memsw.limit_in_bytes": memory,
                "memory.kmem.tcp.limit_in_bytes": memory,  # version 2 counts sockets as memory
            },
            "pids": {"pids.max": pids},
        }
    else:
        limits = {
            "memory": {"memory.max": memory, "memory.swap.max": "0"},
            "pids": {"pids.max": pids},
        }
    if not memory_bytes:
        del limits["memory"]
    if not processes:
        del limits["pids"]
    return limits


_OPTIONAL: Final = frozenset(
    {"memory.memsw.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes", "memory.swap.max"}
)
"""Files that kernels without swap or socket accounting do not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroup:
    """The groups of one instance, one in each hierarchy."""

    directories: tuple[Path, ...]

    @property
    def membership_files(self) -> tuple[str, ...]:
        """A process that writes `0` to each of them enters."""
        return tuple(str(directory / "cgroup.procs") for directory in self.directories)

    def pids(self) -> set[int]:
        """Its living processes; those that `remove` would wait for."""
        return {pid for directory in self.directories for pid in _pids(directory)}

    def forbid_forks(self) -> None:
        """A process that forks and ends, again and again, has always another pid than the one that is killed."""
        for directory in self.directories:
            _forbid_forks(directory)

    def out_of_memory_kills(self) -> int:
        """How many of its processes the kernel has killed since it was made because its memory was used up."""
        for directory in self.directories:
            for name in ("memory.events", "memory.oom_control"):
                with suppress(OSError):
                    for line in (directory / name).read_text().splitlines():
                        if line.startswith("oom_kill "):
                            return int(line.split()[1])
        return 0

    def remove(self) -> bool:
        """Whether it is gone. A group that still has a dying process is not removed yet."""
        for directory in self.directories:
            try:
                directory.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return True


class Cgroups:
    """Makes the groups of the instances of one installation. `marker` names it: its data directory."""

    def __init__(self, hierarchies: Iterable[Hierarchy], *, marker: str) -> None:
        self._hierarchies = tuple(hierarchies)
        self._prefix = _prefix(marker)

    def __repr__(self) -> str:
        return f"<Cgroups {', '.join(self.controllers)}>"

    @property
    def controllers(self) -> tuple[str, ...]:
        return tuple(name for hierarchy in self._hierarchies for name in hierarchy.controllers)

    @property
    def directories(self) -> tuple[Path, ...]:
        """The groups that the instances' are made in."""
        return tuple(hierarchy.directory for hierarchy in self._hierarchies)

    def create(self, name: str, *, memory_bytes: int = 0, processes: int = 0) -> Cgroup:
        """New groups with these limits.

        Raises:
            OSError: they cannot be made; nothing is left of them.
        """
        cgroup = Cgroup(
            directories=tuple(each.directory / (self._prefix + name) for each in self._hierarchies)
        )
        try:
            for hierarchy, directory in zip(self._hierarchies, cgroup.directories, strict=True):
                directory.mkdir(exist_ok=True)
                files = limit_files(hierarchy.version, memory_bytes=memory_bytes, processes=processes)
                for controller in hierarchy.controllers:
                    _write_limits(directory, files.get(controller, {}))
        except OSError:
            cgroup.remove()
            raise
        return cgroup

    def sweep(self) -> int:
        """Kill and remove what an earlier run of this installation left; return how many processes that were."""
        killed = 0
        for hierarchy in self._hierarchies:
            for directory in hierarchy.directory.glob(f"{self._prefix}*"):
                killed += _clear(directory)
        return killed


def find_usable(*, marker: str) -> tuple[Cgroups | None, str]:
    """The groups that this server may make, and why it lacks the controllers that it lacks (empty: it has all)."""
    try:
        membership = Path("/proc/self/cgroup").read_text()
        mounts = Path("/proc/self/mountinfo").read_text()
    except OSError as error:
        return None, f"{error.filename} cannot be read"
    usable, obstacles = [], []
    for hierarchy in find_hierarchies(membership, mounts):
        try:
            offered = _offered(hierarchy) if hierarchy.version == 2 else hierarchy
            if offered.controllers:
                _try(offered.directory / f"{_prefix(marker)}probe")
                usable.append(offered)
        except OSError as error:
            names = ", ".join(hierarchy.controllers) or "anything"
            obstacles.append(f"no group for {names} can be made in {hierarchy.directory} ({error.strerror})")
    cgroups = Cgroups(usable, marker=marker)
    missing = [name for name in CONTROLLERS if name not in cgroups.controllers]
    if not missing:
        return cgroups, ""
    why = "; ".join(obstacles) or f"this machine offers no control group for {', '.join(missing)}"
    return (cgroups if cgroups.controllers else None), why


def _offered(hierarchy: Hierarchy) -> Hierarchy:
    """A version 2 hierarchy, and the controllers that groups made in it have.

    A group that passes controllers on has no processes of its own, so the server moves itself to a group beside its
    instances first. Where others are in its group it leaves that alone, and makes its groups at the top, which may
    have processes and has passed on its controllers already (systemd sees to that).
    """
    own = hierarchy.directory
    if own != hierarchy.top and _pids(own) == {os.getpid()}:
        server = own / _SERVER
        server.mkdir(exist_ok=True)
        (server / "cgroup.procs").write_text("0")
    for directory in (own, hierarchy.top):
        wanted = [name for name in CONTROLLERS if name in _words(directory / "cgroup.controllers")]
        with suppress(OSError):  # EBUSY: others are in it
            (directory / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in wanted))
        passed_on = tuple(name for name in wanted if name in _words(directory / "cgroup.subtree_control"))
        if passed_on:
            with suppress(OSError):  # there is no such group at the top
                (directory / _SERVER / "cpu.weight").write_text(_SERVER_CPU_WEIGHT)
            return replace(hierarchy, directory=directory, controllers=passed_on)
    return hierarchy


def _words(file: Path) -> list[str]:
    return file.read_text().split()


def _prefix(marker: str) -> str:
    return f"moorage-{hashlib.sha256(marker.encode()).hexdigest()[:12]}-"


def _try(directory: Path) -> None:
    """Make a group and remove it again. A server that was killed in between has left it."""
    directory.mkdir(exist_ok=True)
    directory.rmdir()


def _write_limits(directory: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        try:
            (directory / name).write_text(text)
        except OSError as error:
            absent = error.errno in (errno.ENOENT, errno.EACCES, errno.EOPNOTSUPP)
            if not (name in _OPTIONAL and absent):
                raise


def _clear(directory: Path) -> int:
    """Kill what is in a group until it can be removed; at most `_REMOVAL_SECONDS`."""
    killed: set[int] = set()
    _forbid_forks(directory)
    deadline = time.monotonic() + _REMOVAL_SECONDS
    while time.monotonic() < deadline:
        for pid in _pids(directory):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        with suppress(OSError):
            directory.rmdir()
        if not directory.exists():
            break
        time.sleep(0.01)
    return len(killed)


def _forbid_forks(directory: Path) -> None:
    with suppress(OSError):  # a group of another controller has no such file
        (directory / "pids.max").write_text("0")


def _pids(directory: Path) -> set[int]:
    try:
        return {int(line) for line in (directory / "cgroup.procs").read_text().split()}
    except OSError:
        return set()
