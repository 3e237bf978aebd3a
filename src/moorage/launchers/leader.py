"""The leader of an instance: the process that stands for the container's PID 1, from its start to its end.

* It is started by `subprocess` without `preexec_fn` (which is unsafe beside threads, and slow: it forbids vfork).
  Instead a dozen lines of Python, `_TRAMPOLINE`, prepare the new process and replace themselves by the
  container's command. That costs some 10 ms and no thread. The prepared process dies with this one
  (PR_SET_PDEATHSIG); the kernel ties that to the *thread* that forked, so call this in the main thread.
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
from pathlib import Path
from typing import Final

from moorage.launchers.base import InstanceSpec
from moorage.launchers.log_file import LogFile

# Arguments: our pid, then the command line. Python ignores SIGPIPE and SIGXFSZ and a new program would inherit
# that. 1 is PR_SET_PDEATHSIG. A parent that died before the call cannot send the signal any more, hence the
# look at getppid. When memory runs out the kernel is to prefer a container to the platform (oom_score_adj).
_TRAMPOLINE: Final = """
import ctypes, os, resource, signal, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, ())
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.umask(0o022)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
try:
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("300")
except OSError:
    pass
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

    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self.pid = process.pid
        self.port = port
        self.started = time.monotonic()
        self.healthy_since: float | None = None
        self._process = process
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
            self.gone.set_result(seen.si_status if seen.si_code == os.CLD_EXITED else -seen.si_status)


def start_leader(spec: InstanceSpec, environment: Mapping[str, str], *, port: int, log: LogFile) -> Leader:
    """Start the container's command in a session of its own, its output going to the log.

    Raises:
        CannotStart: there is no such command, or no process can be had.
    """
    try:
        Path(spec.base_dir).mkdir(parents=True, exist_ok=True)
        _check_command(spec.argv, environment["PATH"], spec.base_dir)
        output = log.open()
    except OSError as error:
        raise CannotStart(f"{error.filename}: {error.strerror}") from error
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _TRAMPOLINE, str(os.getpid()), *spec.argv],
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
        return Leader(process, port)
    except OSError as error:
        process.kill()
        process.wait()
        raise CannotStart(f"no descriptor for its process: {error.strerror}") from error


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
