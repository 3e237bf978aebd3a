"""The leader of an instance: the process that stands for the container's PID 1, from its start to its end.

**The launch chain** is what runs before the container's command does, as the server's own user: a shell that enters
the control groups, bubblewrap if there is a view, and a few lines of Python, `_TRAMPOLINE`, that set limits, change
the user and become the command. It has a fixed environment, absolute paths and `/` as its directory. What a model
says (its environment, its directory, the command's search path) is in a file in memory that only the trampoline
reads, and acts only after the change of user: a variable such as LD_PRELOAD would otherwise be code run as root.

* It is started by `subprocess` without `preexec_fn` (which is unsafe beside threads, and slow: it forbids vfork).
  That costs some 15 ms and no thread, with a view some 12 ms more. The prepared process dies with this one
  (PR_SET_PDEATHSIG); the kernel ties that to the *thread* that forked, so call this in the main thread.
* With a network of its own the chain is started in a new network namespace, which lasts as long as the instance's
  processes do. The trampoline waits until the namespace is complete (`Leader.release`).
* Its death is noticed through a pidfd, at once and without polling. It stays a zombie until `collect`, so that its
  numbers (pid, process group, session) cannot be given to others while its group is still being killed.
"""

import asyncio
import marshal
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Final

from moorage import network_namespace
from moorage.launchers import bubblewrap, procfs
from moorage.launchers.base import InstanceSpec
from moorage.launchers.cgroups import Cgroup
from moorage.launchers.isolation import Isolation, User
from moorage.launchers.log_collector import InstanceLog
from moorage.outbound.keeper_client import KeptNetwork

# The part of a chain whose network somebody else keeps: to enter it is to enter its user namespace first.
_JOIN: Final = """
import ctypes, os, sys
setns = ctypes.CDLL(None, use_errno=True).setns
for descriptor, kind in zip(map(int, sys.argv[1].split(",")), (0x10000000, 0x40000000)):
    if setns(descriptor, kind):
        os.write(2, f"cannot enter its network: {os.strerror(ctypes.get_errno())}\\n".encode())
        os._exit(126)
    os.close(descriptor)
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
os.read(gate, 1)
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
"""


class CannotStart(Exception):
    """The container's process could not even be started; the text says why."""


class Leader:
    """A running leader. `gone` has its return code as soon as it is dead; `collect` then lets it go.

    `network` names the network namespace of its own, if it has one; `cgroup` are its control groups, if any.
    """

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        port: int,
        *,
        in_view: bool,
        network: str,
        cgroup: Cgroup | None,
        gate: int,
    ) -> None:
        self.pid = process.pid
        self.port = port
        self.network = network
        self.cgroup = cgroup
        self.started = time.monotonic()
        self.healthy_since: float | None = None
        self._process = process
        self._in_view = in_view
        self._gate = gate
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[int] = self._loop.create_future()
        self._descriptor = os.pidfd_open(process.pid)
        self._loop.add_reader(self._descriptor, self._on_death)

    def release(self) -> None:
        """Let the container's command begin. Until then the launch chain waits before it. Again is allowed."""
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1

    def age(self) -> float:
        return time.monotonic() - self.started

    def healthy_seconds(self) -> float | None:
        return None if self.healthy_since is None else time.monotonic() - self.healthy_since

    def collect(self) -> None:
        self.release()
        self._process.wait()

    def _on_death(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        seen = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # a look; collects nothing
        assert seen is not None
        if not self.gone.done():
            status = seen.si_status if seen.si_code == os.CLD_EXITED else -seen.si_status
            self.gone.set_result(bubblewrap.returncode(status) if self._in_view else status)


def start_leader(
    spec: InstanceSpec,
    environment: Mapping[str, str],
    *,
    generation: int,
    port: int,
    log: InstanceLog,
    isolation: Isolation,
    kept: KeptNetwork | None = None,
) -> Leader:
    """Start the container's command in a session of its own, its output going to the log, in the network that a
    keeper made for it if there is one.

    Raises:
        CannotStart: there is no such command, or no process can be had.
    """
    user = isolation.user_of(spec)
    argv = [word.replace("{port}", str(port)) for word in spec.argv]
    with ExitStack() as descriptors, ExitStack() as undo:
        try:
            log.open()
            _furnish(spec, user)
            _check_command(argv, spec.base_dir)
            output = log.pipe(None if user is None else (user.uid, user.gid))
            descriptors.callback(os.close, output)
            cgroup = isolation.create_cgroup(f"{spec.instance_id}-{generation}")
            if cgroup is not None:
                undo.callback(cgroup.remove)
            prepared = _in_memory(_document(spec, argv, environment, user, isolation))
            descriptors.callback(os.close, prepared)
            waits, gate = os.pipe2(os.O_CLOEXEC)
            descriptors.callback(os.close, waits)
            undo.callback(os.close, gate)
            passed_on = [prepared, waits]
            if isolation.view is not None and isolation.seccomp:
                passed_on.append(_in_memory(isolation.seccomp))
                descriptors.callback(os.close, passed_on[-1])
            chain = _chain(spec, argv, user, isolation, cgroup, *passed_on)
            if kept is not None:
                joined = ",".join(map(str, kept.descriptors))
                chain = [sys.executable, "-I", "-S", "-c", _JOIN, joined, *chain]
                passed_on += kept.descriptors
            own = kept is None and isolation.has_own_network(spec)
            with network_namespace.new_namespace() if own else nullcontext():
                process = subprocess.Popen(
                    chain,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd="/",
                    env=_chain_environment(environment),
                    pass_fds=passed_on,
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:
            raise CannotStart(_sentence(error)) from error
        try:
            leader = Leader(
                process,
                port,
                in_view=isolation.view is not None,
                network=kept.name if kept else network_namespace.reference(process.pid) if own else "",
                cgroup=cgroup,
                gate=gate,
            )
        except OSError as error:
            process.kill()
            process.wait()
            raise CannotStart(f"no descriptor for its process: {error.strerror}") from error
        undo.pop_all()
        return leader


def _chain(
    spec: InstanceSpec,
    argv: Sequence[str],
    user: User | None,
    isolation: Isolation,
    cgroup: Cgroup | None,
    prepared: int,
    gate: int,
    seccomp: int | None = None,
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


def _chain_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """All that the launch chain sees: how the server's own Python finds its libraries, and whose instance it is."""
    markers = {name: environment[name] for name in (procfs.MARKER_VARIABLE, procfs.INSTANCE_VARIABLE)}
    libraries = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"PATH": os.defpath, **libraries, **markers}


def _document(
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


def _in_memory(content: bytes) -> int:
    """A descriptor of a file that has no name, to be read from its start. The caller closes it."""
    descriptor = os.memfd_create("moorage", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _furnish(spec: InstanceSpec, user: User | None) -> None:
    """Make the directories that a container finds, and give it what it may write: no more than that.

    At a later start the container has been at work here, so nothing is followed and nothing changes its owner.
    """
    base_dir = Path(spec.base_dir)
    base_dir.mkdir(parents=True, exist_ok=True)
    if user is not None:
        os.chown(base_dir, 0, user.gid, follow_symlinks=False)
        base_dir.chmod(0o750)
    for name in ("model", "output", "tmp"):
        with suppress(FileExistsError):
            (base_dir / name).mkdir()
            if user is not None and name != "model":
                os.chown(base_dir / name, user.uid, user.gid, follow_symlinks=False)
    if spec.cache_dir:
        _furnish_cache(Path(spec.cache_dir), user)


def _furnish_cache(directory: Path, user: User | None) -> None:
    uid = os.geteuid() if user is None else user.uid
    if directory.exists() and directory.lstat().st_uid != uid:
        shutil.rmtree(directory)  # of a start under other settings; whoever could write it is not trusted now
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
        if user is not None:
            os.chown(directory, user.uid, user.gid, follow_symlinks=False)


def _check_command(argv: Sequence[str], base_dir: str) -> None:
    """Raises `CannotStart` if there is no such program: sooner and clearer than the kernel would say it.

    A name without a directory is looked for by the container itself, in the PATH that its environment may have set.
    """
    if not argv:
        raise CannotStart("its command line is empty")
    command = argv[0]
    if "/" in command:
        file = Path(base_dir) / command
        if not file.exists():
            raise CannotStart(f"its command {command} does not exist")
        if file.is_dir() or not os.access(file, os.X_OK):
            raise CannotStart(f"its command {command} is not an executable file")
