"""The container's HTTP: GET /ping and POST /invocations, as a plain ASGI application."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from moorage.modelhost.errors import InvocationError
from moorage.modelhost.frames import Kind, ReplyHead, RequestHead
from moorage.modelhost.pool import WorkerPool
from moorage.modelhost.worker_process import WorkerLost, WorkerProcess

logger = logging.getLogger("modelhost")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_TEXT = "text/plain; charset=utf-8"


class ClientGone(Exception):
    """The client hung up before its body was complete."""


class App:
    def __init__(self, pool: WorkerPool, *, max_request_bytes: int | None) -> None:
        self._pool = pool
        self._max_request_bytes = max_request_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match (scope["path"], scope["method"]):
            case ("/ping", "GET" | "HEAD"):
                trouble = self._pool.trouble
                await _text(send, 503 if trouble else 200, f"Not ready: {trouble}\n" if trouble else "")
            case ("/invocations", "POST"):
                await self._invocations(scope, receive, send)
            case ("/ping", _):
                await _text(send, 405, "/ping answers GET.\n", {"allow": "GET, HEAD"})
            case ("/invocations", _):
                await _text(send, 405, "/invocations answers POST.\n", {"allow": "POST"})
            case _:
                await _text(send, 404, "This container answers GET /ping and POST /invocations.\n")

    async def _invocations(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            body = await self._body(headers, receive)
        except ClientGone:
            return
        except InvocationError as error:
            # The rest of the body is still on its way, so the connection is of no more use.
            await _text(send, error.status, error.message, {"connection": "close"})
            return
        invocation = Invocation(self._pool, RequestHead(headers=_for_user(headers)), body, send)
        del body  # the invocation lets go of it once the worker has it; a stream may last long
        answering = asyncio.create_task(invocation.answer(), name="answer")
        leaving = asyncio.create_task(_disconnected(receive), name="disconnect")
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the time to drain is up
            if not invocation.started:
                await _text(send, 503, "The container was stopped before this invocation had ended.\n")
            raise
        finally:
            answering.cancel()
            leaving.cancel()
            await asyncio.wait({answering, leaving})
        fault = None if answering.cancelled() else answering.exception()
        if fault is not None:
            logger.error("an invocation failed in the model host itself", exc_info=fault)
            raise fault

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes:
        limit = self._max_request_bytes
        if limit is not None and int(headers.get("content-length", "0")) > limit:
            raise _too_large(limit)
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if limit is not None and size > limit:
                raise _too_large(limit)
            more = message.get("more_body", False)
        return b"".join(parts)


class Invocation:
    """One invocation on its way through a worker. Cancelling `answer` tells the worker to stop."""

    def __init__(self, pool: WorkerPool, head: RequestHead, body: bytes, send: Send) -> None:
        self._pool = pool
        self._head = head
        self._body = body
        self._send = send
        self.started = False

    async def answer(self) -> None:
        """Sends the reply. If it fails after its head it stays incomplete, and the server breaks the connection."""
        try:
            worker = await self._pool.acquire()
            await self._exchange(worker)
        except InvocationError as error:
            await _text(self._send, error.status, error.message)
        except WorkerLost as lost:
            if not self.started:
                await _text(
                    self._send, 500, f"The worker that ran this invocation {lost}. It is being replaced.\n"
                )

    async def _exchange(self, worker: WorkerProcess) -> None:
        try:
            await worker.begin(self._head, self._body)
            await self._relay(worker)
        except WorkerLost:
            raise  # the pool has noticed too
        except BaseException:
            self._pool.abandon(worker)
            raise
        worker.served += 1
        self._pool.release(worker)

    async def _relay(self, worker: WorkerProcess) -> None:
        """Frames to ASGI messages. A slow client blocks `send`, then nobody reads, then the worker waits."""
        while True:
            frame = await worker.next_frame()
            match frame.kind:
                case Kind.HEAD:
                    await self._start(ReplyHead.decode(frame.payload))
                case Kind.BODY:
                    await self._send({"type": "http.response.body", "body": frame.payload, "more_body": True})
                case Kind.END:
                    return await self._send({"type": "http.response.body", "body": b"", "more_body": False})
                case _:  # ABORT: the worker has logged why
                    return None

    async def _start(self, head: ReplyHead) -> None:
        self.started = True
        headers = dict(head.headers)
        if head.length is not None:
            headers["content-length"] = str(head.length)
        await self._send({"type": "http.response.start", "status": head.status, "headers": _encoded(headers)})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


def _for_user(headers: dict[str, str]) -> dict[str, str]:
    """What the platform promises to pass on, and nothing of the connection."""
    return {
        name: value
        for name, value in headers.items()
        if name in ("content-type", "accept") or name.startswith("x-amzn-")
    }


def _too_large(limit: int) -> InvocationError:
    return InvocationError(413, f"The body is larger than {limit} bytes (SAGEMAKER_MAX_REQUEST_SIZE).\n")


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


async def _text(send: Send, status: int, text: str, headers: dict[str, str] | None = None) -> None:
    body = text.encode()
    fixed = {"content-type": _TEXT, "content-length": str(len(body))}
    await send(
        {"type": "http.response.start", "status": status, "headers": _encoded(fixed | (headers or {}))}
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})
