"""The launch chain: what runs before a container's command does, as the server's own user.

A process that enters the user namespace of its network, if somebody else keeps that; a shell that enters the control
groups; bubblewrap, if there is a view; and a few lines of Python, `_TRAMPOLINE`, that set limits, change the user and
become the command. It has a fixed environment, absolute paths and `/` as its directory. What a model says (its
environment, its directory, the command's search path) is in a file in memory that only the trampoline reads, and acts
only after the change of user: a variable such as LD_PRELOAD would otherwise be code run as root.
"""

import marshal
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from moorage.launchers import bubblewrap, procfs
from moorage.launchers.base import InstanceSpec
from moorage.launchers.cgroups import Cgroup
from moorage.launchers.isolation import Isolation, User
from moorage.outbound.keeper_client import KeptNetwork

# The part of a chain whose network somebody else keeps: to enter it is to enter its user namespace first. Who enters
# has every capability there, which a root of few capabilities would pass on: 24 is PR_CAPBSET_DROP.
_JOIN: Final = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
setns = libc.setns
for descriptor, kind in zip(map(int, sys.argv[1].split(",")), (0x10000000, 0x40000000)):
    if setns(descriptor, kind):
        os.write(2, f"cannot enter its network: {os.strerror(ctypes.get_errno())}\\n".encode())
        os._exit(126)
    os.close(descriptor)
for capability in range(64):
    libc.prctl(24, capability, 0, 0, 0)
os.execv(sys.argv[2], sys.argv[2:])
"""

_ENTER: Final = (
    'umask 022; test "$PPID" = "$0" || exit 1; '
    'while test "$1" != --; do echo 0 >"$1" || exit 1; shift; done; shift; exec "$@"'
)
"""The shell's part. Arguments: our pid, the files that it writes to, `--`, the rest of the chain. A parent that is
gone can take nobody with it any more."""

# Python ignores SIGPIPE and SIGXFSZ, and bubblewrap's shell SIGTERM; a new program would inherit that. 1 is
# PR_SET_PDEATHSIG, which a change of the user clears; 38 is PR_SET_NO_NEW_PRIVS, 22 PR_SET_SECCOMP with 2 for a
# filter. In a view, bwrap has seen to these and `parent` is 0. A parent that died before the call cannot send the
# signal any more, hence the look at getppid. When memory runs out the kernel is to prefer a container to the platform
# (oom_score_adj).
_TRAMPOLINE: Final = """
import marshal, os, resource, signal, sys
gate = int(sys.argv[2])
if not os.read(gate, 1):
    os._exit(1)
os.close(gate)
with open(int(sys.argv[1]), "rb") as file:
    parent, uid, gid, limits, seccomp, directory, argv, environment = marshal.load(file)
for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, ())
os.umask(0o022)
try:
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("300")
except OSError:
    pass
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
kinds = resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE
for kind, most in zip(kinds, limits):
    if most:
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
if parent:
    import ctypes
    prctl = ctypes.CDLL(None).prctl
if uid >= 0:
    os.setgroups(())
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
if parent:
    prctl(38, 1, 0, 0, 0)
    if seccomp:
        class Filter(ctypes.Structure):
            _fields_ = ("length", ctypes.c_ushort), ("program", ctypes.c_char_p)
        if prctl(22, 2, ctypes.byref(Filter(len(seccomp) // 8, seccomp)), 0, 0):
            os.write(2, b"cannot filter system calls\\n")
            os._exit(126)
    prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
try:
    os.chdir(directory)
    os.execvpe(argv[0], argv, environment)
except OSError as error:
    why = error.strerror
    if "/" not in argv[0] and isinstance(error, FileNotFoundError):
        why = f"it was not found in the PATH {environment.get('PATH')}"
    os.write(2, f"cannot execute {argv[0]}: {why}\\n".encode())
    os._exit(127)
except ValueError as error:
    os.write(2, f"cannot give it its environment: {error}\\n".encode(errors="replace"))
    os._exit(127)
"""


def command(
    spec: InstanceSpec,
    argv: Sequence[str],
    user: User | None,
    isolation: Isolation,
    cgroup: Cgroup | None,
    prepared: int,
    gate: int,
    seccomp: int | None = None,
    kept: KeptNetwork | None = None,
) -> list[str]:
    """The chain's command line. `prepared`, `gate` and `seccomp` are descriptors that it inherits: of the `document`,
    of a pipe whose other end is closed when the container may begin, and of the filter for bubblewrap."""
    inner = _inner(spec, argv, user, isolation, cgroup, prepared, gate, seccomp)
    if kept is None:
        return inner
    return [sys.executable, "-I", "-S", "-c", _JOIN, ",".join(map(str, kept.descriptors)), *inner]


def _inner(
    spec: InstanceSpec,
    argv: Sequence[str],
    user: User | None,
    isolation: Isolation,
    cgroup: Cgroup | None,
    prepared: int,
    gate: int,
    seccomp: int | None,
) -> list[str]:
    enter = [str(os.getpid()), *(cgroup.membership_files if cgroup is not None else ()), "--"]
    trampoline = [sys.executable, "-I", "-S", "-c", _TRAMPOLINE, str(prepared), str(gate)]
    if isolation.view is None:
        return ["/bin/sh", "-c", _ENTER, *enter, *trampoline]
    view = bubblewrap.command(
        isolation.view,
        argv,
        base_dir=spec.base_dir,
        cache_dir=spec.cache_dir,
        keep_user=user is None,
        seccomp=seccomp,
    )
    # The signals for the whole process group would end bwrap before the container could finish.
    return ["/bin/sh", "-c", f'trap "" TERM; {_ENTER}', *enter, *view, *trampoline]


def environment(container: Mapping[str, str]) -> dict[str, str]:
    """All that the launch chain sees: how the server's own Python finds its libraries, and whose instance it is."""
    markers = {name: container[name] for name in (procfs.MARKER_VARIABLE, procfs.INSTANCE_VARIABLE)}
    libraries = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"PATH": os.defpath, **libraries, **markers}


def document(
    spec: InstanceSpec,
    argv: Sequence[str],
    environment: Mapping[str, str],
    user: User | None,
    isolation: Isolation,
) -> bytes:
    """What the trampoline reads, in the order in which it does."""
    limits = isolation.limits
    return marshal.dumps(
        (
            0 if isolation.view else os.getpid(),
            user.uid if user else -1,
            user.gid if user else -1,
            (
                limits.open_files,
                limits.processes if isolation.is_fence else 0,
                limits.memory_bytes,
                limits.file_bytes,
            ),
            isolation.seccomp,
            isolation.path_inside(spec, spec.base_dir),
            list(argv),
            dict(environment),
        )
    )


def in_memory(content: bytes) -> int:
    """A descriptor of a file that has no name, to be read from its start. The caller closes it."""
    descriptor = os.memfd_create("moorage", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
