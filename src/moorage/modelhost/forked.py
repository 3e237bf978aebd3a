"""A worker that is forked from the front: it begins with what the front has imported, whose memory both share.

The front runs no user code, so nothing of a model is in a process before it is forked. A model with an environment of
its own has another interpreter, and is started by `bootstrap`.
"""

import asyncio
import atexit
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NoReturn


class ForkedProcess:
    """As much of `asyncio.subprocess.Process` as is needed of it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._loop = asyncio.get_running_loop()
        self._code: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(self._pidfd, self._reap)

    async def wait(self) -> int:
        """The exit code, or the number of the signal that ended it, negated."""
        return await asyncio.shield(self._code)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Raises ProcessLookupError if it has ended."""
        if self._code.done():
            raise ProcessLookupError
        signal.pidfd_send_signal(self._pidfd, number)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        _, status = os.waitpid(self.pid, 0)
        self._code.set_result(os.waitstatus_to_exitcode(status))


def fork(
    run: Callable[[], None],
    *,
    descriptors: Collection[int],
    directory: Path | None,
    environment: Mapping[str, str],
) -> ForkedProcess:
    """A process that runs the function, and has none of our files open but these descriptors. OSError when the system
    has no room for one."""
    gc.collect()
    gc.freeze()  # what is there stays where it is, so that no collection writes to memory that is shared
    pid = os.fork()
    if pid:
        return ForkedProcess(pid)
    status = os.EX_SOFTWARE
    try:
        _leave_the_front(descriptors)
        os.environ.update(environment)
        if directory is not None:
            os.chdir(directory)
        run()
        status = os.EX_OK
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else os.EX_SOFTWARE
    except BaseException:
        traceback.print_exc()
    finally:
        _end(status)


def _leave_the_front(descriptors: Collection[int]) -> None:
    """Nothing of its loop, its signals and its connections is left here."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    asyncio.set_event_loop(None)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    kept = sorted({0, 1, 2, *descriptors})
    for first, after in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(first + 1, after)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    sys.path[:] = [path for path in sys.path if path not in ("", str(Path.cwd()))]


def _end(status: int) -> NoReturn:
    """As the interpreter ends, with what user code has registered for that, but without the front's own objects."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for those that are no daemons
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
    os._exit(status)
