"""The server's own child processes: started, started again when they die, and stopped in order.

A child dies with its parent (PR_SET_PDEATHSIG), so that `kill -9` of the parent leaves nothing behind.
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from moorage.launchers.procfs import SERVER_VARIABLE
from moorage.runtime import last_words
from moorage.runtime.child_output import TakeLine, follow

_BACKOFF_SECONDS = (0.05, 0.2, 1.0, 5.0)
_STABLE_SECONDS = 10.0
_LAST_WORDS_SECONDS = 1.0

# Arguments: our pid, the child's name, then the command line. A parent that died before prctl cannot send the signal
# any more.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
try:
    os.execvp(sys.argv[3], sys.argv[3:])
except OSError as error:
    words = f"Cannot start the program of the {sys.argv[2]} process, {sys.argv[3]}: {error.strerror}."
    os.write(int(os.environ["MOORAGE_LAST_WORDS_FD"]), words.encode()[:4096])
    os._exit(os.EX_CONFIG)
"""
logger = logging.getLogger(__name__)


class Child:
    """One process that is kept alive until it is stopped.

    `environment` may be changed for its next start. `socket` is the path of a Unix socket that it makes: one left
    over by its predecessor is removed first. `take_line` is given what it prints, line by line; without, it prints to
    our own stdout and stderr. `gives_up` is called with the sentence of one that has ended for a reason that lasts
    (`moorage.runtime.last_words`), and says whether that is the end of it; else it is tried again.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        pass_fds: Sequence[int] = (),
        socket: Path | None = None,
        take_line: TakeLine | None = None,
        gives_up: Callable[[str], bool] = lambda sentence: False,
    ) -> None:
        self.name = name
        self._argv = tuple(argv)
        self.environment = dict(environment)
        self._pass_fds = tuple(pass_fds)
        self._socket = socket
        self._take_line = take_line
        self._gives_up = gives_up
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._task = asyncio.create_task(self._keep_alive(), name=f"keep {name} alive")

    def __repr__(self) -> str:
        return f"<Child {self.name} pid={self._process.pid if self._process else None}>"

    def is_stopping(self) -> bool:
        return self._stopping

    async def stop(self, number: int, *, timeout_seconds: float) -> None:
        """Send a signal and wait for the end; SIGKILL after the timeout. Again is allowed, to hurry."""
        self._stopping = True
        self.signal(number)
        done, _ = await asyncio.wait({self._task}, timeout=timeout_seconds)
        if not done:
            logger.warning("%s did not stop within %g s and is killed", self.name, timeout_seconds)
            if self._process is not None:
                with suppress(ProcessLookupError):
                    self._process.kill()
            await asyncio.wait({self._task})

    def signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _end_of(self, process: asyncio.subprocess.Process) -> int:
        """Its exit status, once all that it printed has been taken."""
        if process.stdout is None or self._take_line is None:
            return await process.wait()
        following = asyncio.create_task(follow(process.stdout, self._take_line))
        status = await process.wait()
        # A process that it left behind may have the pipe open still.
        await asyncio.wait({following}, timeout=_LAST_WORDS_SECONDS)
        following.cancel()
        return status

    async def _keep_alive(self) -> None:
        deaths = 0
        while not self.is_stopping():
            started = time.monotonic()
            if self._socket is not None:
                self._socket.unlink(missing_ok=True)
            try:
                status, sentence = await self._live()
            except (OSError, RuntimeError) as error:  # no process, thread or descriptor is to be had just now
                status, sentence = os.EX_OSERR, f"it cannot be started: {error}"
            if self.is_stopping():
                return
            if status == os.EX_CONFIG and sentence and self._gives_up(sentence):
                self._stopping = True
                return
            deaths = 0 if time.monotonic() - started > _STABLE_SECONDS else deaths + 1
            pause = _BACKOFF_SECONDS[min(max(deaths - 1, 0), len(_BACKOFF_SECONDS) - 1)]
            how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
            if sentence:
                how, pause = f"cannot go on: {sentence}", _BACKOFF_SECONDS[-1]
            logger.error("the %s process %s; it is started again in %g s", self.name, how, pause)
            await asyncio.sleep(pause)

    async def _live(self) -> tuple[int, str]:
        """One life: its exit status, and its last words."""
        words, pen = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), self.name),
                    *self._argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=None if self._take_line is None else asyncio.subprocess.PIPE,
                    stderr=None if self._take_line is None else asyncio.subprocess.STDOUT,
                    env={**self.environment, SERVER_VARIABLE: self.name, last_words.PIPE: str(pen)},
                    pass_fds=(*self._pass_fds, pen),
                    start_new_session=True,  # a ^C in the terminal is the parent's to pass on
                )
            finally:
                os.close(pen)
            status = await self._end_of(self._process)
            with suppress(BlockingIOError):  # nothing was written, and somebody else has the pipe still
                return status, os.read(words, last_words.LONGEST).decode("utf-8", "replace")
            return status, ""
        finally:
            os.close(words)
