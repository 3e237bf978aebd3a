"""One worker process, as the front sees it: launched, given connections, watched, killed."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moorage.modelhost import messages
from moorage.modelhost.errors import StartupError
from moorage.modelhost.forked import Forked, channel, environment_of, fork_worker
from moorage.modelhost.messages import DUMP_SIGNAL, Failure, Kind, Message
from moorage.modelhost.settings import Settings
from moorage.modelhost.shared import Shared, State
from moorage.modelhost.visitors import Visitor

logger = logging.getLogger("modelhost")

_BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
_SHORT_BYTES = 64  # of a message that has no payload

_DUMP_SECONDS = 0.2
_RETRY_SECONDS = 0.02

_EXIT_SECONDS = 2.0


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


class WorkerProcess:
    """One child process, our end of its socket pair, and the connections that are with it, by slot."""

    def __init__(
        self,
        number: int,
        process: asyncio.subprocess.Process | ForkedProcess,
        control: socket.socket,
        shared: Shared,
        *,
        timeout_seconds: float | None,
    ) -> None:
        self.number = number
        self.name = f"worker {number + 1}"
        self.alive = True
        self.keeps = False
        """Whether connections stay with it; else one at a time is with it, and goes back after each reply."""
        self.leaving = False  # it has been told to: it gets no new connections
        self.visitors: dict[int, Visitor] = {}
        self.holder: int | None = None
        """The slot whose connection has the worker's turn; for a worker that keeps its connections, None."""
        self.ready: deque[int] = deque()
        """Slots whose connections wait here for a turn."""
        self.on_message: Callable[[Message], None] = self._ignore
        self._process = process
        self._control = control
        self._shared = shared
        self._timeout_seconds = timeout_seconds
        control.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[tuple[bytes, Visitor | None]] = deque()
        self._free_slots: list[int] = []
        self._used_slots = 0
        self._killed_because = ""
        self.exceeded_its_time = False
        """Whether it was killed because user code had run for longer than it may."""
        self._loaded: asyncio.Future[Message] = self._loop.create_future()
        self._drained: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(control, self._receive)
        self._exit = asyncio.create_task(self._watch(), name=f"{self.name} exit")

    def __repr__(self) -> str:
        return f"<WorkerProcess {self.name} pid={self._process.pid} alive={self.alive} served={self.served}>"

    @classmethod
    async def launch(cls, number: int, python: Path, settings: Settings) -> "WorkerProcess":
        """Starts the process; `loaded` tells when it can serve. Numbers begin with 0. StartupError when the system
        has no room for one."""
        if settings.forks and python == Path(sys.executable):
            return cls.adopt(number, fork_worker(settings, number), settings)
        with channel() as (control, shared, descriptors):
            process = await asyncio.create_subprocess_exec(
                *(str(python), "-P", str(_BOOTSTRAP)),
                *map(str, (*descriptors, os.getpid(), number)),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=descriptors,
                cwd=settings.code_dir,
                env=os.environ | environment_of(settings),
            )
        return cls(number, process, control, shared, timeout_seconds=settings.timeout_seconds)

    @classmethod
    def adopt(cls, number: int, forked: Forked, settings: Settings) -> "WorkerProcess":
        """One that was forked before there was a loop."""
        return cls(
            number,
            ForkedProcess(forked.pid),
            forked.control,
            forked.shared,
            timeout_seconds=settings.timeout_seconds,
        )

    @property
    def served(self) -> int:
        """How many invocations it has brought to an end."""
        return self._shared.served[0]

    def state(self, slot: int) -> State:
        return State(self._shared.states[slot])

    async def loaded(self) -> None:
        """Returns once the model is loaded, however long that takes. StartupError when it cannot be."""
        await _first(self._loaded, self._exit)
        if not self._loaded.done():
            raise StartupError(
                f"The process that loads the model {self._exit.result()}: its last lines above may say why."
            )
        message = self._loaded.result()
        self.keeps = message.payload == messages.KEEPS
        if message.kind is Kind.FAILED:
            failure = Failure.decode(message.payload)
            raise StartupError(failure.sentence, detail=failure.detail)

    def hand_over(self, visitor: Visitor) -> int:
        """The worker serves this connection from now on. Gives its slot."""
        if self._free_slots:
            slot = self._free_slots.pop()
        else:
            slot = self._used_slots
            self._used_slots += 1
        self._shared.states[slot] = State.UNTOUCHED
        self.visitors[slot] = visitor
        self._send(messages.encode(Kind.CONNECTION, slot), visitor)
        return slot

    def take_back(self, slot: int) -> Visitor:
        """The worker has let go of this connection."""
        self._free_slots.append(slot)
        return self.visitors.pop(slot)

    def tell(self, kind: Kind, slot: int = 0) -> None:
        self._send(messages.encode(kind, slot))

    async def exited(self) -> str:
        """Waits for the end of the process and says how it came."""
        return await asyncio.shield(self._exit)

    async def kill(self, because: str) -> str:
        self._killed_because = self._killed_because or because
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        return await self.exited()

    async def drain(self) -> None:
        """Asks it to leave, and returns when it has served what it had, or has died of it."""
        if not self.leaving:
            self.leaving = True
            self.tell(Kind.SHUTDOWN)
        await _first(self._drained, self._exit)

    @property
    def drained(self) -> bool:
        return self._drained.done()

    async def stop(self) -> None:
        """After `drain`: gives the user's atexit functions some time."""
        try:
            async with asyncio.timeout(_EXIT_SECONDS):
                await self.exited()
        except TimeoutError:
            await self.kill("it did not stop when asked to")

    async def kill_when_stuck(self) -> None:
        """Looks, now and then, whether user code has been running for longer than it may."""
        limit = self._timeout_seconds
        if limit is None:
            return
        pause = min(max(limit / 10, 0.05), 1.0)
        while self.alive:
            await asyncio.sleep(pause)
            since = self._shared.busy_since[0]
            if since and time.monotonic() - since > limit:
                await self._kill_stuck(limit, since)

    async def _kill_stuck(self, limit: float, since: float) -> None:
        logger.error("%s has been busy for %g s; its stack follows, then it is killed", self.name, limit)
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(DUMP_SIGNAL)
        await asyncio.sleep(_DUMP_SECONDS)
        if self._shared.busy_since[0] != since:
            logger.error("%s has come to an end with it meanwhile, and is left alone", self.name)
            return
        self.exceeded_its_time = True
        await self.kill(f"it took longer than {limit:g} s (SAGEMAKER_MODEL_SERVER_TIMEOUT sets the limit)")

    def _send(self, packet: bytes, visitor: Visitor | None = None) -> None:
        self._unsent.append((packet, visitor))
        if len(self._unsent) == 1:
            self._send_on()

    def _send_on(self) -> None:
        while self._unsent and self.alive:
            packet, visitor = self._unsent[0]
            try:
                socket.send_fds(self._control, [packet], [visitor.fd] if visitor is not None else [])
            except (BrokenPipeError, ConnectionResetError):
                return  # it has died, and `visitors` knows whom it leaves behind
            except OSError:
                # It is busy, and as many packets, or descriptors, are on their way as the kernel lets be.
                self._loop.call_later(_RETRY_SECONDS, self._send_on)
                return
            self._unsent.popleft()

    def _receive(self) -> None:
        """One packet; more of them wake us again."""
        packet = self._received()
        if packet:
            self._hear(messages.decode(packet))
        elif packet is not None:
            self._loop.remove_reader(self._control)

    def _received(self) -> bytes | None:
        """Empty when no more will come; None when nothing has yet."""
        try:
            return self._control.recv(_SHORT_BYTES if self._loaded.done() else messages.MAX_BYTES)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""

    def _hear(self, message: Message) -> None:
        match message.kind:
            case Kind.LOADED | Kind.FAILED:
                self._loaded.set_result(message)
            case Kind.DRAINED:
                self._drained.set_result(None)
            case _:
                self.on_message(message)

    def _ignore(self, message: Message) -> None:
        raise AssertionError(f"{message} from a worker that has no connections")

    async def _watch(self) -> str:
        code = await self._process.wait()
        while packet := self._received():
            self._hear(messages.decode(packet))
        self.alive = False
        self._loop.remove_reader(self._control)
        self._control.close()
        if self._killed_because:
            return f"was killed because {self._killed_because}"
        if code >= 0:
            return f"ended with exit code {code}"
        hint = ", perhaps for lack of memory" if -code == signal.SIGKILL else ""
        return f"was killed by {_signal_name(-code)}{hint}"


async def _first(*futures: "asyncio.Future[Any]") -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:
        return f"signal {number}"
