"""What Linux tells about processes: who belongs to an instance, what they listen on, who was left behind.

An instance is its leader's session and process group, plus whoever carries the instance's two markers in the
environment it was started with (a daemon that made a session of its own), plus the children of all these. A
process that leaves the session *and* clears its environment *and* outlives its parent becomes our child
(`become_subreaper`), which is how it is found (`adopted`) where there are no control groups to ask.
"""

import ctypes
import os
import signal
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARKER_VARIABLE = "MOORAGE_DATA_DIR"
INSTANCE_VARIABLE = "MOORAGE_INSTANCE_ID"
SERVER_VARIABLE = "MOORAGE_PROCESS"
"""In the environment of the server's own child processes: its name."""

_PROC = Path("/proc")
_PR_SET_CHILD_SUBREAPER = 36
_TCP_LISTEN = "0A"
_SWEEP_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process as it was when looked at. `pid` with `start_time` names it beyond the reuse of its pid.

    `state` is that of its first thread, which may have ended before others: `threads` counts all of them.
    """

    pid: int
    start_time: int
    state: str
    threads: int
    parent: int
    group: int
    session: int
    marker: str | None
    instance_id: str | None
    is_server: bool = False

    @property
    def is_dead(self) -> bool:
        return self.state in "ZX" and self.threads <= 1


def processes() -> list[Process]:
    """Every process but this one. Those of other users come without their markers."""
    own = os.getpid()
    pids = (int(entry.name) for entry in os.scandir(_PROC) if entry.name.isdigit())
    found = (_read(pid) for pid in pids if pid != own)
    return [process for process in found if process is not None]


def start_time(pid: int) -> int:
    """When a process began, in the kernel's ticks since the machine did; 0 if it is gone."""
    process = _read(pid)
    return 0 if process is None else process.start_time


def living(pids: Iterable[int]) -> list[Process]:
    """Those of these processes that are there and not dead."""
    found = (_read(pid) for pid in pids)
    return [process for process in found if process is not None and not process.is_dead]


def adopted(everyone: Iterable[Process], *, besides: Collection[int], since: int) -> list[Process]:
    """The living children of ours that began after `since` (a start time) and are neither the server's processes, nor
    leaders (`besides`), nor say whose they are: daemons that hide. For a process whose own children all say that they
    are the server's (`SERVER_VARIABLE`)."""
    own = os.getpid()
    return [
        process
        for process in everyone
        if process.parent == own
        and process.start_time >= since
        and not process.is_dead
        and not process.is_server
        and process.instance_id is None
        and process.pid not in besides
        and process.session not in besides
    ]


def members(everyone: Iterable[Process], *, leader: int, marker: str, instance_id: str) -> list[Process]:
    """The living processes of one instance among `everyone`; `leader` 0 if it has none."""
    living = [process for process in everyone if not process.is_dead]
    inside = {
        process.pid
        for process in living
        if (leader > 0 and leader in (process.pid, process.group, process.session))
        or (process.marker == marker and process.instance_id == instance_id)
    }
    grew = bool(inside)
    while grew:
        children = {process.pid for process in living if process.parent in inside} - inside
        inside |= children
        grew = bool(children)
    return [process for process in living if process.pid in inside]


def kill(process: Process) -> None:
    """SIGKILL exactly that process, even if its pid was given to another one meanwhile."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        seen = _read(process.pid)
        if seen is not None and seen.start_time == process.start_time:
            with suppress(OSError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)


def reap(pid: int) -> None:
    """Collect a dead process that became our child by adoption; nothing happens if it did not."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def sweep(marker: str) -> int:
    """Kill what an earlier run with the same marker left behind; return how many processes that were.

    For the start of the parent, before anything is launched. Processes of our own user only; as root, of all.
    Blocks until they are gone, at most five seconds.
    """
    killed: set[tuple[int, int]] = set()
    deadline = time.monotonic() + _SWEEP_SECONDS
    while time.monotonic() < deadline:
        left = [
            process
            for process in processes()
            if process.marker == marker and process.instance_id is not None and not process.is_dead
        ]
        if not left:
            break
        for process in left:
            kill(process)
            killed.add((process.pid, process.start_time))
        time.sleep(0.01)
    for pid, _ in killed:
        reap(pid)
    return len(killed)


def become_subreaper() -> None:
    """Let orphans among our descendants become our children instead of init's. `ProcessLauncher` reaps them."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def has_dead_children() -> bool:
    """Whether any child waits to be collected: one system call, which takes nothing away."""
    with suppress(ChildProcessError):
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return False


def dead_children(*, besides: Collection[int]) -> set[tuple[int, int]]:
    """(pid, start time) of our children that are dead and not collected, without those in `besides`."""
    own = os.getpid()
    return {
        (process.pid, process.start_time)
        for process in processes()
        if process.is_dead and process.parent == own and process.pid not in besides
    }


def listening_ports(of: Sequence[Process]) -> dict[int, set[str]]:
    """TCP ports on which any of these processes listens, each with its addresses as the kernel prints them."""
    found: dict[int, set[str]] = {}
    sockets = _listening_sockets(of[0].pid) if of else {}
    for process in of:
        for inode in (_socket_inodes(process.pid) or set()) & sockets.keys():
            address, port = sockets[inode]
            found.setdefault(port, set()).add(address)
    return found


def listen_alone(of: Sequence[Process], port: int) -> bool:
    """Whether these processes listen on that TCP port, and nobody else in their network does, on whatever address.

    Where the kernel does not let us see their sockets, there is no telling, and it is believed.
    """
    if not of:
        return False
    held = [_socket_inodes(process.pid) for process in of]
    if all(inodes is None for inodes in held):
        return True
    own = {inode for inodes in held if inodes is not None for inode in inodes}
    listening = {inode for inode, (_, other) in _listening_sockets(of[0].pid).items() if other == port}
    return bool(listening) and listening <= own


def count_sockets(of: Sequence[Process]) -> int:
    """How many sockets these processes hold together."""
    return len({inode for process in of for inode in _socket_inodes(process.pid) or ()})


def out_of_memory_kills() -> int:
    """How many processes the kernel has killed for want of memory since it started."""
    with suppress(OSError, ValueError):
        for line in (_PROC / "vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def ephemeral_ports() -> range:
    """The ports from which the kernel serves outgoing connections."""
    try:
        low, high = (_PROC / "sys/net/ipv4/ip_local_port_range").read_text().split()
        return range(int(low), int(high) + 1)
    except (OSError, ValueError):
        return range(32768, 61000)


def _read(pid: int) -> Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name before it may hold blanks and parentheses
    state = fields[0].decode()
    threads = int(fields[17])
    markers: dict[str, str] = {}
    if state not in "ZX":
        markers = _read_markers(Path(f"/proc/{pid}"))
    elif threads > 1:  # what its first thread had is gone with that, and another one has it still
        markers = next(filter(None, map(_read_markers, Path(f"/proc/{pid}/task").glob("*"))), {})
    return Process(
        pid=pid,
        start_time=int(fields[19]),
        state=state,
        threads=threads,
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        marker=markers.get(MARKER_VARIABLE),
        instance_id=markers.get(INSTANCE_VARIABLE),
        is_server=SERVER_VARIABLE in markers and Path(f"/proc/{pid}").stat().st_uid == os.geteuid(),
    )


def _read_markers(task: Path) -> dict[str, str]:
    try:
        entries = (task / "environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    values: dict[str, str] = {}
    for name in (MARKER_VARIABLE, INSTANCE_VARIABLE, SERVER_VARIABLE):
        prefix = name.encode() + b"="
        for entry in entries:
            if entry.startswith(prefix):
                values[name] = os.fsdecode(entry[len(prefix) :])
    return values


def _listening_sockets(pid: int) -> dict[str, tuple[str, int]]:
    """By inode, the address and port of every listening TCP socket in the network of that process."""
    found = {}
    for table in ("tcp", "tcp6"):
        try:
            lines = (_PROC / str(pid) / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _TCP_LISTEN:
                address, _, port = fields[1].rpartition(":")
                found[fields[9]] = (address, int(port, 16))
    return found


def _socket_inodes(pid: int) -> set[str] | None:
    """The sockets that a process holds; None if that may not be seen."""
    inodes = set()
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                target = os.readlink(entry.path)  # noqa: PTH115 - hundreds of them, and no path is wanted
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    except PermissionError:
        return None
    except OSError:
        pass
    return inodes
