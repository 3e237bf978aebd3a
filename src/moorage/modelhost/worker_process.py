"""One worker process, as the front sees it: launched, spoken to in frames, watched, killed."""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
from collections import deque
from pathlib import Path

from moorage.modelhost import frames
from moorage.modelhost.errors import StartupError
from moorage.modelhost.frames import DUMP_SIGNAL, Failure, Frame, Kind, RequestHead
from moorage.modelhost.settings import Settings

logger = logging.getLogger("modelhost")

_BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
_READ_BYTES = 64 * 1024

_DUMP_SECONDS = 0.2

_SHUTDOWN_SECONDS = 2.0
_LAST_BYTES_SECONDS = 1.0


class WorkerLost(Exception):
    """The worker ended, or had to be ended, during an invocation."""


class WorkerProcess:
    """One child process and our end of its socket pair."""

    def __init__(
        self,
        name: str,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        timeout_seconds: float | None,
    ) -> None:
        self.name = name
        self.alive = True
        self.served = 0
        self._process = process
        self._reader = reader
        self._writer = writer
        self._timeout_seconds = timeout_seconds
        self._decoder = frames.Decoder()
        self._frames: deque[Frame] = deque()
        self._numbers = itertools.count(1)
        self._number = 0
        self._killed_because = ""
        self._exit = asyncio.create_task(self._watch(), name=f"{name} exit")

    def __repr__(self) -> str:
        return f"<WorkerProcess {self.name} pid={self._process.pid} alive={self.alive} served={self.served}>"

    @classmethod
    async def launch(cls, name: str, python: Path, settings: Settings) -> "WorkerProcess":
        """Starts the process; `loaded` tells when it can serve."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(str(python), "-P", str(_BOOTSTRAP), str(theirs.fileno()), str(os.getpid())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                cwd=settings.code_dir,
                env=os.environ | _absolute_paths(settings),
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_READ_BYTES)
        return cls(name, process, reader, writer, timeout_seconds=settings.timeout_seconds)

    async def loaded(self) -> None:
        """Returns once the model is loaded, however long that takes. StartupError when it cannot be."""
        try:
            frame = await self._next_frame(timeout_seconds=None)
        except WorkerLost as lost:
            raise StartupError(
                f"The process that loads the model {lost}: its last lines above may say why."
            ) from None
        if frame.kind is Kind.FAILED:
            failure = Failure.decode(frame.payload)
            raise StartupError(failure.sentence, detail=failure.detail)
        assert frame.kind is Kind.READY, frame

    async def begin(self, head: RequestHead, body: bytes) -> int:
        """Sends an invocation, gives its number. After a cancelled `begin`, `settle` cleans up."""
        number = self._number = next(self._numbers)
        try:
            self._writer.write(frames.encode(Kind.HEAD, number, head.encode()))
            for frame in frames.encode_body(number, body):
                self._writer.write(frame)
                await self._writer.drain()
            self._writer.write(frames.encode(Kind.END, number))
            await self._writer.drain()
        except ConnectionError:
            raise WorkerLost(await self.exited()) from None
        return number

    async def next_frame(self) -> Frame:
        """The next frame of the reply. Past the time limit, which runs only while we wait, kills the worker."""
        return await self._next_frame(timeout_seconds=self._timeout_seconds)

    async def settle(self) -> None:
        """Tells the worker that nobody waits any more, and returns when it has come to an end."""
        try:
            self._writer.write(frames.encode(Kind.CANCEL, self._number))
            # It may not have the whole invocation yet; END makes it answer at once.
            self._writer.write(frames.encode(Kind.END, self._number))
            while (await self.next_frame()).kind not in (Kind.END, Kind.ABORT):
                continue
        except ConnectionError:
            raise WorkerLost(await self.exited()) from None

    async def exited(self) -> str:
        """Waits for the end of the process and says how it came."""
        return await asyncio.shield(self._exit)

    async def kill(self, because: str) -> str:
        self._killed_because = self._killed_because or because
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        return await self.exited()

    async def stop(self) -> None:
        """Asks politely, so that the user's atexit functions run; then does not ask."""
        with contextlib.suppress(ConnectionError):
            self._writer.write(frames.encode(Kind.SHUTDOWN))
        try:
            async with asyncio.timeout(_SHUTDOWN_SECONDS):
                await self.exited()
        except TimeoutError:
            await self.kill("it did not stop when asked to")

    async def _next_frame(self, *, timeout_seconds: float | None) -> Frame:
        while not self._frames:
            try:
                async with asyncio.timeout(timeout_seconds):
                    data = await self._reader.read(_READ_BYTES)
            except TimeoutError:
                raise WorkerLost(await self._kill_stuck()) from None
            except ConnectionError:
                data = b""
            if not data:
                raise WorkerLost(await self.exited())
            self._frames.extend(self._decoder.feed(data))
        return self._frames.popleft()

    async def _kill_stuck(self) -> str:
        logger.error(
            "%s has been busy for %g s; its stack follows, then it is killed",
            self.name,
            self._timeout_seconds,
        )
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(DUMP_SIGNAL)
        await asyncio.sleep(_DUMP_SECONDS)
        return await self.kill(
            f"it took longer than {self._timeout_seconds:g} s (SAGEMAKER_MODEL_SERVER_TIMEOUT sets the limit)"
        )

    async def _watch(self) -> str:
        code = await self._process.wait()
        self.alive = False
        # What it said last may still be on the way to us. End of file follows, except when a child of user
        # code holds the worker's end open.
        asyncio.get_running_loop().call_later(_LAST_BYTES_SECONDS, self._hang_up)
        if self._killed_because:
            return f"was killed because {self._killed_because}"
        if code >= 0:
            return f"ended with exit code {code}"
        hint = ", perhaps for lack of memory" if -code == signal.SIGKILL else ""
        return f"was killed by {_signal_name(-code)}{hint}"

    def _hang_up(self) -> None:
        self._writer.close()
        self._reader.feed_eof()


def _absolute_paths(settings: Settings) -> dict[str, str]:
    """The worker's working directory is another one; user code reads these too."""
    paths = {"SM_MODEL_DIR": settings.model_dir, "SAGEMAKER_SUBMIT_DIRECTORY": settings.code_dir}
    return {name: str(path) for name, path in paths.items() if path is not None}


def _signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:
        return f"signal {number}"
