"""The process that holds the model: one invocation at a time, from and to the front's socket.

The main thread runs user code. A listening thread reads the socket all the while, so that a cancelled
stream stops at once, and so that the worker leaves when the front is gone, whatever user code is doing.
"""

import ctypes
import faulthandler
import logging
import os
import queue
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from moorage.modelhost import frames
from moorage.modelhost.cancellation import CANCEL_SIGNAL, RESEND_SECONDS, Cancellation, ClientGone
from moorage.modelhost.context import Context
from moorage.modelhost.errors import InvocationError, StartupError
from moorage.modelhost.frames import DUMP_SIGNAL, Decoder, Kind, RequestHead
from moorage.modelhost.handlers import Answer, Handler
from moorage.modelhost.reply import Reply, pump
from moorage.modelhost.settings import Settings

if TYPE_CHECKING:
    import asyncio

_TRACEBACK_LINES = 12
_PR_SET_PDEATHSIG = 1
_OUR_FILES = str(Path(__file__).parent)


def main(fd: int, front_pid: int) -> None:
    """Runs until the front says SHUTDOWN or is gone. `fd` is our end of the socket pair."""
    _die_with(front_pid)
    # Their names in the front's terminal or process group; the front decides when workers leave. Handlers
    # that do nothing rather than SIG_IGN, which children of user code would inherit.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda signum, frame: None)
    faulthandler.enable()
    faulthandler.register(DUMP_SIGNAL, all_threads=True)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    settings = Settings.from_environment(os.environ)
    logging.basicConfig(
        stream=sys.stderr, level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    Worker(sock, settings).run()


def _die_with(front_pid: int) -> None:
    """The kernel kills us with the front, should user code hold the interpreter lock for ever."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != front_pid:  # it died before the line above
        os._exit(1)


@dataclass(slots=True)
class Invocation:
    number: int
    head: RequestHead
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False
    cancellation: Cancellation = field(default_factory=Cancellation)


class Worker:
    def __init__(self, sock: socket.socket, settings: Settings) -> None:
        self._sock = sock
        self._settings = settings
        self._handler = Handler(settings, wait=self._wait)
        self._inbox: queue.SimpleQueue[Invocation | None] = queue.SimpleQueue()
        self._current = Cancellation()
        self._runner: asyncio.Runner | None = None
        signal.signal(CANCEL_SIGNAL, self._on_signal)

    def run(self) -> None:
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        try:
            self._handler.load()
        except BaseException as error:
            # SystemExit too: no user code is to end a worker without a word.
            self._send(Kind.FAILED, 0, _failure(error, self._settings).encode())
            self._inbox.get()  # the front ends us when it has read that
            return
        self._send(Kind.READY, 0)
        while (invocation := self._inbox.get()) is not None:
            self._current = invocation.cancellation
            self._serve(invocation)
            _flush_output()
        if self._runner is not None:
            self._runner.close()

    # The listening thread.

    def _listen(self) -> None:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        decoder = Decoder()
        invocation: Invocation | None = None
        while True:
            deaf = invocation is not None and invocation.cancellation.is_deaf
            if not poll.poll(RESEND_SECONDS * 1000 if deaf else None):
                assert invocation is not None, "only a deaf invocation has a time limit"
                invocation.cancellation.nudge()
                continue
            data = self._received()
            if not data:
                os._exit(1)
            for frame in decoder.feed(data):
                invocation = self._take(frame, invocation)

    def _received(self) -> bytes:
        try:
            return self._sock.recv(frames.MAX_BODY_BYTES)
        except ConnectionError:
            return b""

    def _take(self, frame: frames.Frame, invocation: Invocation | None) -> Invocation | None:
        """Gives the invocation that later frames are about."""
        match frame.kind:
            case Kind.HEAD:
                return Invocation(frame.invocation, RequestHead.decode(frame.payload))
            case Kind.BODY if invocation is not None:
                invocation.body += frame.payload
            case Kind.END if invocation is not None and not invocation.complete:
                invocation.complete = True
                self._inbox.put(invocation)
            case Kind.CANCEL if invocation is not None and invocation.number == frame.invocation:
                invocation.cancellation.request()
                if invocation.cancellation.is_deaf:
                    invocation.cancellation.nudge()
            case Kind.SHUTDOWN:
                self._inbox.put(None)
            case _:
                pass  # CANCEL and the END after it, when they crossed with our own END
        return invocation

    # The main thread.

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self._current.on_signal(signum, frame)

    def _serve(self, invocation: Invocation) -> None:
        reply = Reply(self._sock, invocation.number)
        context = Context(
            model_dir=self._settings.model_dir,
            headers=invocation.head.headers,
            request_id=invocation.head.headers.get("x-amzn-sagemaker-inference-id") or str(invocation.number),
        )
        try:
            if not invocation.cancellation.requested:
                answer = self._handler.transform(bytes(invocation.body), context)
                reply.begin(answer, context)
                self._send_body(answer, reply)
            reply.end()
        except BaseException as error:
            self._failed(error, reply, cancelled=invocation.cancellation.requested)

    def _failed(self, error: BaseException, reply: Reply, *, cancelled: bool) -> None:
        """Every invocation ends with END or ABORT, whatever happened: else the front would wait for ever."""
        told_to_stop = cancelled and (
            isinstance(error, ClientGone) or type(error).__name__ == "CancelledError"
        )
        if not told_to_stop and not isinstance(error, InvocationError):
            print(traceback.format_exc(), end="", file=sys.stderr, flush=True)
        if told_to_stop or reply.started:
            reply.abort()
        else:
            reply.error(*_error_answer(error))

    def _send_body(self, answer: Answer, reply: Reply) -> None:
        if isinstance(answer.body, bytes):
            reply.whole(answer.body)
        elif isinstance(answer.body, AsyncIterator):
            self._wait(pump(answer.body, reply))
        else:
            self._stream(answer.body, reply)

    def _stream(self, parts: Iterator[Any], reply: Reply) -> None:
        cancellation = self._current
        try:
            while True:
                try:
                    part = cancellation.next_part(parts)
                except StopIteration:
                    return
                reply.part(part)
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()

    def _wait(self, awaitable: Awaitable[Any]) -> Any:
        """Runs async user code. One loop for the worker's life, since clients and locks belong to a loop."""
        import asyncio  # here, because most models need none of it and it is slow to import

        if self._runner is None:
            self._runner = asyncio.Runner()
        loop = self._runner.get_loop()
        cancellation = self._current

        async def attached() -> Any:
            task = asyncio.current_task()
            assert task is not None
            cancellation.attach(task)
            try:
                return await awaitable
            finally:
                cancellation.detach()

        return loop.run_until_complete(attached())

    def _send(self, kind: Kind, invocation: int, payload: bytes = b"") -> None:
        self._sock.sendall(frames.encode(kind, invocation, payload))


def _error_answer(error: BaseException) -> tuple[int, str]:
    if isinstance(error, InvocationError):
        return error.status, error.message
    status = 500
    if any(base.__name__ == "BaseInferenceToolkitError" for base in type(error).__mro__):
        # User code may raise the toolkit's own error to choose the status.
        status = int(getattr(error, "status_code", 500))
    lines = "".join(_user_traceback(error)).splitlines()
    shown = "\n".join(lines[-_TRACEBACK_LINES:])
    return status, f"{type(error).__name__}: {error}\n\n{shown}\n"


def _user_traceback(error: BaseException) -> list[str]:
    """Without our own frames, which come first and tell the user nothing."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OUR_FILES):
        trace = trace.tb_next
    return traceback.format_exception(type(error), error, trace)


def _failure(error: BaseException, settings: Settings) -> frames.Failure:
    detail = "".join(traceback.format_exception(error))
    if isinstance(error, StartupError):
        return frames.Failure(sentence=error.sentence, detail=detail)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, ModuleNotFoundError):
        advice = "add the package that provides it to code/requirements.txt"
    elif settings.code_dir is not None:
        advice = f"correct {settings.program} or the model artifact (the traceback is above)"
    else:
        advice = f"check the artifact in {settings.model_dir} (the traceback is above)"
    return frames.Failure(sentence=f"The model could not be loaded, {what}: {advice}.", detail=detail)


def _flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            # User code closed or replaced it, or nobody reads our log any more; the model still serves.
            continue
