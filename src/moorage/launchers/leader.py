"""The leader of an instance: the process that stands for the container's PID 1, from its start to its end.

* It is started by `subprocess` without `preexec_fn` (which is unsafe beside threads, and slow: it forbids vfork).
  Instead a few lines of Python, `_TRAMPOLINE`, prepare the new process (limits, user, no new privileges) and replace
  themselves by the container's command. That costs some 15 ms and no thread. With a view of its own (`bubblewrap`)
  they run inside of it, for some 12 ms more. The prepared process dies with this one (PR_SET_PDEATHSIG); the kernel
  ties that to the *thread* that forked, so call this in the main thread.
* Its death is noticed through a pidfd, at once and without polling. It stays a zombie until `collect`, so that
  its numbers (pid, process group, session) cannot be given to others while its group is still being killed.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from moorage.launchers import bubblewrap
from moorage.launchers.base import InstanceSpec
from moorage.launchers.isolation import Isolation, User
from moorage.launchers.log_file import LogFile

# Arguments: numbers, then the command line. Python ignores SIGPIPE and SIGXFSZ, and a new program would inherit that.
# 1 is PR_SET_PDEATHSIG, which a change of the user clears; 38 is PR_SET_NO_NEW_PRIVS. In a view, bwrap has seen to
# both and `parent` is 0. A parent that died before the call cannot send the signal any more, hence the look at
# getppid. When memory runs out the kernel is to prefer a container to the platform (oom_score_adj).
_TRAMPOLINE: Final = """
import os, resource, signal, sys
parent, uid, gid, files, processes, memory, file_size = map(int, sys.argv[1].split(","))
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
for kind, most in (
    (resource.RLIMIT_NOFILE, files),
    (resource.RLIMIT_NPROC, processes),
    (resource.RLIMIT_DATA, memory),
    (resource.RLIMIT_FSIZE, file_size),
):
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
    prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    os.write(2, f"cannot execute {sys.argv[2]}: {error.strerror}\\n".encode())
    os._exit(127)
"""


class CannotStart(Exception):
    """The container's process could not even be started; the text says why."""


class Leader:
    """A running leader. `gone` has its return code as soon as it is dead; `collect` then lets it go."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, *, in_view: bool) -> None:
        self.pid = process.pid
        self.port = port
        self.started = time.monotonic()
        self.healthy_since: float | None = None
        self._process = process
        self._in_view = in_view
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[int] = self._loop.create_future()
        self._descriptor = os.pidfd_open(process.pid)
        self._loop.add_reader(self._descriptor, self._on_death)

    def age(self) -> float:
        return time.monotonic() - self.started

    def healthy_seconds(self) -> float | None:
        return None if self.healthy_since is None else time.monotonic() - self.healthy_since

    def collect(self) -> None:
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
    spec: InstanceSpec, environment: Mapping[str, str], *, port: int, log: LogFile, isolation: Isolation
) -> Leader:
    """Start the container's command in a session of its own, its output going to the log.

    Raises:
        CannotStart: there is no such command, or no process can be had.
    """
    user = isolation.user_of(spec)
    try:
        _furnish(spec, user)
        _check_command(spec.argv, environment["PATH"], spec.base_dir)
        output = log.open()
    except OSError as error:
        raise CannotStart(f"{error.filename}: {error.strerror}") from error
    try:
        if user is not None:  # /dev/stderr can be opened anew, as programs in containers do
            os.fchown(output, -1, user.gid)
            os.fchmod(output, 0o660)
        process = subprocess.Popen(
            _command_line(spec, environment, user, isolation),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=spec.base_dir,
            env=environment,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise CannotStart(str(error)) from error
    finally:
        os.close(output)
    try:
        return Leader(process, port, in_view=isolation.view is not None)
    except OSError as error:
        process.kill()
        process.wait()
        raise CannotStart(f"no descriptor for its process: {error.strerror}") from error


def _command_line(
    spec: InstanceSpec, environment: Mapping[str, str], user: User | None, isolation: Isolation
) -> list[str]:
    limits = isolation.limits
    numbers = (
        *(0 if isolation.view else os.getpid(), user.uid if user else -1, user.gid if user else -1),
        *(limits.open_files, limits.processes if isolation.is_fence else 0),
        *(limits.memory_bytes, limits.file_bytes),
    )
    prepared = [
        *(sys.executable, "-I", "-S", "-c", _TRAMPOLINE),
        *(",".join(str(number) for number in numbers), *spec.argv),
    ]
    if isolation.view is None:
        return prepared
    view = bubblewrap.command(
        isolation.view,
        spec.argv,
        path=environment["PATH"],
        base_dir=spec.base_dir,
        cache_dir=spec.cache_dir,
        keep_user=user is None,
    )
    return [*bubblewrap.SHELL_PREFIX, str(os.getpid()), *view, *prepared]


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


def _check_command(argv: Sequence[str], path: str, base_dir: str) -> None:
    """Raises `CannotStart` if there is no such program: sooner and clearer than the kernel would say it."""
    if not argv:
        raise CannotStart("its command line is empty")
    command = argv[0]
    if "/" in command:
        file = Path(base_dir) / command
        if not file.exists():
            raise CannotStart(f"its command {command} does not exist")
        if file.is_dir() or not os.access(file, os.X_OK):
            raise CannotStart(f"its command {command} is not an executable file")
    elif shutil.which(command, path=path) is None:
        raise CannotStart(f"its command {command} was not found in the PATH {path}")
