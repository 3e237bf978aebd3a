"""The process that holds the model, and runs one invocation at a time.

The main thread serves the clients (`serving`) and runs user code. A second one (`watcher`) sleeps until a client or
the front has gone, so that a cancelled stream stops at once, and so that the worker leaves with the front, whatever
user code is doing.
"""

import ctypes
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from moorage.modelhost import messages, output, workspace
from moorage.modelhost.batches import Raised
from moorage.modelhost.cancellation import CANCEL_SIGNAL, Cancellation, ClientGone
from moorage.modelhost.connection import Connection, Request
from moorage.modelhost.context import Context, gpu_of
from moorage.modelhost.errors import InvocationError, StartupError
from moorage.modelhost.gathering import Gathering
from moorage.modelhost.handlers import Answer, Handler
from moorage.modelhost.messages import DUMP_SIGNAL, Failure, Kind
from moorage.modelhost.reply import Reply
from moorage.modelhost.serving import PATIENCE_SECONDS, Call, InvokeAll, Server
from moorage.modelhost.settings import Settings
from moorage.modelhost.shared import Shared
from moorage.modelhost.streams import AsyncStream, Stream, SyncStream, attached
from moorage.modelhost.watcher import Watcher

if TYPE_CHECKING:
    import asyncio

    from moorage.modelhost.side_by_side import SideBySide

logger = logging.getLogger("modelhost")

_LEFT_TO_THE_FRONT: Final = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
PROCESS_NAME: Final = b"model-worker"
"""By which `ps` and `top` tell a worker from the front, whose command line it has if it was forked from it."""


def main(control_fd: int, memory_fd: int, front_pid: int, number: int) -> None:
    """Runs until the front says SHUTDOWN or is gone. The descriptors: our end of the socket pair, and `Shared`. The
    number tells this worker from the others of its host."""
    _die_with(front_pid)
    # They mean the front's terminal or process group; the front decides when workers leave. Handlers that do
    # nothing rather than SIG_IGN, which children of user code would inherit.
    for each in _LEFT_TO_THE_FRONT:
        signal.signal(each, _do_nothing)
    _Forks().attend()
    faulthandler.enable()
    faulthandler.register(DUMP_SIGNAL, all_threads=True)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    settings = Settings.from_environment(os.environ)
    logging.basicConfig(
        stream=sys.stderr, level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    control = socket.socket(fileno=control_fd)
    control.set_inheritable(False)
    shared = Shared(memory_fd)
    os.close(memory_fd)
    workspace.enter(settings)
    Worker(control, shared, settings, number).run()


def _do_nothing(signum: int, frame: FrameType | None) -> None:
    """A signal that is left to the front."""


class _Forks:
    """Children that user code forks, such as a multiprocessing.Pool's, end when they are told to. That may be at
    once, so the signals wait until the child has their usual handlers."""

    def __init__(self) -> None:
        self._masks = threading.local()

    def attend(self) -> None:
        os.register_at_fork(before=self._hold, after_in_parent=self._let_go, after_in_child=self._be_usual)

    def _hold(self) -> None:
        self._masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_THE_FRONT)

    def _let_go(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.before)

    def _be_usual(self) -> None:
        for number in _LEFT_TO_THE_FRONT:
            if signal.getsignal(number) is _do_nothing:
                signal.signal(number, signal.SIG_DFL)
        self._let_go()


def _die_with(front_pid: int) -> None:
    """The kernel kills us with the front, should user code hold the interpreter lock for ever."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(_PR_SET_NAME, PROCESS_NAME)
    if os.getppid() != front_pid:  # it died before the line above
        os._exit(1)


class Worker:
    """Loads the model and runs what its clients ask: one invocation at a time, in the main thread."""

    def __init__(self, control: socket.socket, shared: Shared, settings: Settings, number: int) -> None:
        self._control = control
        self._shared = shared
        self._settings = settings
        self._number = number
        self._gpu_id = gpu_of(number)
        self._handler = Handler(settings, wait=self._wait, gpu_id=self._gpu_id)
        self._current = Cancellation()
        self._runner: asyncio.Runner | None = None
        self._wait_otherwise: Callable[[Awaitable[Any]], Any] | None = None
        signal.signal(CANCEL_SIGNAL, self._on_signal)

    def run(self) -> None:
        watcher = Watcher(self._control)
        watcher.start()
        try:
            self._handler.load()
            if self._number == 0:
                for sentence in self._handler.version_differences():
                    logger.warning("%s", sentence)
        except BaseException as error:
            # SystemExit too: no user code is to end a worker without a word.
            failure = _failure(error, self._settings)
            self._control.send(messages.encode(Kind.FAILED, payload=failure.encode()))
            signal.pause()  # the front ends us when it has read that
            return
        side_by_side = self._side_by_side()
        batches = self._batches() if side_by_side is None else None
        keeps = self._settings.workers == 1 or side_by_side is not None or batches is not None
        patience = PATIENCE_SECONDS if self._settings.interleaves_streams else None
        server = Server(
            self._control,
            self._shared,
            watcher,
            self._invoke if side_by_side is None else side_by_side.start,
            self._go_on,
            keeps=keeps,
            max_request_bytes=self._settings.max_request_bytes,
            patience_seconds=patience if side_by_side is None else 0.0,
            batches=batches,
        )
        self._control.send(messages.encode(Kind.LOADED, payload=messages.KEEPS if keeps else b""))
        if side_by_side is None:
            server.run()
        else:
            side_by_side.run(server)
        self._control.send(messages.encode(Kind.DRAINED))
        if self._runner is not None:
            self._runner.close()

    def _side_by_side(self) -> "SideBySide | None":
        """What runs invocations beside each other, where they can be."""
        if not self._handler.is_async and self._settings.threads == 1:
            return None
        from moorage.modelhost.side_by_side import (
            SideBySide,  # here, because it needs asyncio, which is slow to import
        )

        result = SideBySide(
            self._settings,
            self._handler,
            self._shared,
            context=lambda request: self._context(request.headers),
            failed=lambda error, reply, cancelled: self._failed(error, reply, cancelled=cancelled),
            loop=self._loop(),
        )
        if not self._handler.is_async:
            self._wait_otherwise = result.wait
        return result

    def _batches(self) -> tuple[Gathering, InvokeAll] | None:
        settings = self._settings
        if settings.batch_size == 1:
            return None
        obstacle = self._handler.in_the_way_of_batches
        if obstacle is not None:
            logger.warning("invocations are not run in batches: %s", obstacle)
            return None
        return Gathering(
            most=settings.batch_size, delay_seconds=settings.batch_delay_seconds
        ), self._invoke_all

    def _invoke_all(self, calls: Sequence[Call]) -> list[Stream | None]:
        """A batch. For each, a stream whose client does not read, or None."""
        if len(calls) == 1:
            return [self._invoke(*calls[0])]
        cancellations = [Cancellation() for _ in calls]
        for (connection, _, _), cancellation in zip(calls, cancellations, strict=True):
            connection.running = cancellation
        self._current = Cancellation()
        self._shared.busy_since[0] = monotonic()
        try:
            answers = self._handler.transform_all(
                [(request.body, request.headers, self._context(request.headers)) for _, request, _ in calls]
            )
        except BaseException as error:
            answers = [Raised(error)] * len(calls)
        streams = []
        for (connection, _, reply), cancellation, answer in zip(calls, cancellations, answers, strict=True):
            step = partial(self._write, answer, reply)
            streams.append(self._run(connection, cancellation, reply, step))
        return streams

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self._current.on_signal(signum, frame)

    def _invoke(self, connection: Connection, request: Request, reply: Reply) -> Stream | None:
        """None when the invocation has ended; else a stream whose client does not read."""
        cancellation = Cancellation()
        return self._run(connection, cancellation, reply, lambda: self._answer(request, reply))

    def _go_on(self, connection: Connection, stream: Stream) -> Stream | None:
        """With a stream whose client has read, or has gone."""
        step = self._close if connection.gone else self._advance
        return self._run(connection, stream.cancellation, stream.reply, lambda: step(stream))

    def _run(
        self,
        connection: Connection,
        cancellation: Cancellation,
        reply: Reply,
        step: Callable[[], Stream | None],
    ) -> Stream | None:
        connection.running = self._current = cancellation
        clock = self._shared.busy_since
        clock[0] = monotonic()
        stream = None
        try:
            stream = step()
        except BaseException as error:
            clock[0] = 0.0
            self._failed(error, reply, cancelled=cancellation.requested)
        clock[0] = 0.0
        connection.running = None
        if stream is None:
            self._shared.served[0] += 1
        return stream

    def _answer(self, request: Request, reply: Reply) -> Stream | None:
        headers = request.headers
        context = self._context(headers)
        return self._write(self._handler.transform(request.body, headers, context), reply)

    def _write(self, answer: Answer | Raised, reply: Reply) -> Stream | None:
        if isinstance(answer, Raised):
            raise answer.error
        body, content_type, context = answer
        reply.begin(content_type, context)
        if isinstance(body, bytes):
            output.flush()
            reply.whole(body)
            return None
        if isinstance(body, AsyncIterator):
            return self._advance(AsyncStream(body, reply, self._current, self._loop()))
        return self._advance(SyncStream(body, reply, self._current))

    def _advance(self, stream: Stream) -> Stream | None:
        if not stream.advance():
            return stream
        output.flush()
        stream.reply.end()
        return None

    def _close(self, stream: Stream) -> None:
        stream.close()
        output.flush()
        stream.reply.break_off()

    def _context(self, headers: dict[str, str]) -> Context | None:
        """None where user code does not take it."""
        if not self._handler.takes_context:
            return None
        return Context(
            model_dir=self._handler.model_dir,
            gpu_id=self._gpu_id,
            headers=headers,
            request_id=headers.get("x-amzn-sagemaker-inference-id") or str(self._shared.served[0] + 1),
        )

    def _failed(self, error: BaseException, reply: Reply, *, cancelled: bool) -> None:
        told_to_stop = isinstance(error, ClientGone) or (
            cancelled and type(error).__name__ == "CancelledError"
        )
        if not told_to_stop and not isinstance(error, InvocationError):
            output.log(traceback.format_exc())
        output.flush()
        if told_to_stop or reply.started:
            reply.break_off()
            return
        try:
            reply.error(self._handler.explain(error))
        except ClientGone:
            reply.break_off()

    def _wait(self, awaitable: Awaitable[Any]) -> Any:
        """Runs async user code."""
        if self._wait_otherwise is not None:
            return self._wait_otherwise(awaitable)
        return self._loop().run_until_complete(attached(awaitable, self._current))

    def _loop(self) -> "asyncio.AbstractEventLoop":
        """One for the worker's life, since clients and locks belong to a loop."""
        if self._runner is None:
            import asyncio  # here, because most models need none of it and it is slow to import

            self._runner = asyncio.Runner()
        return self._runner.get_loop()


def _failure(error: BaseException, settings: Settings) -> Failure:
    detail = "".join(traceback.format_exception(error))
    if isinstance(error, StartupError):
        return Failure(sentence=error.sentence, detail=detail)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, ModuleNotFoundError):
        advice = "add the package that provides it to code/requirements.txt"
    elif settings.code_dir is not None:
        advice = f"correct {settings.program} or the model artifact (the traceback is above)"
    else:
        advice = f"check the artifact in {settings.model_dir} (the traceback is above)"
    return Failure(sentence=f"The model could not be loaded, {what}: {advice}.", detail=detail)
