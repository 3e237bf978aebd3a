"""The worker's side of a reply: a whole body or a stream, as frames."""

import socket
from collections.abc import AsyncIterator
from typing import Any

from moorage.modelhost import frames
from moorage.modelhost.context import FORWARDED_HEADERS, Context, sendable
from moorage.modelhost.frames import Kind, ReplyHead
from moorage.modelhost.handlers import Answer

TEXT = "text/plain; charset=utf-8"


class Reply:
    """What goes back for one invocation. The head of a stream waits for its first part, so that an error
    before it is still a proper answer, and headers set until then count."""

    def __init__(self, sock: socket.socket, invocation: int) -> None:
        self.started = False
        self._sock = sock
        self._invocation = invocation
        self._status = 200
        self._headers: dict[str, str] = {}
        self._context: Context | None = None

    def begin(self, answer: Answer, context: Context) -> None:
        self._headers = {"content-type": sendable(str(answer.content_type))}
        self._context = context

    def whole(self, body: bytes) -> None:
        self._send_head(length=len(body))
        for frame in frames.encode_body(self._invocation, body):
            self._sock.sendall(frame)

    def part(self, part: Any) -> None:
        if isinstance(part, str):
            part = part.encode()
        elif not isinstance(part, bytes | bytearray | memoryview):
            raise TypeError(
                f"a stream is made of bytes or str, but a part of this one is a {type(part).__name__}"
            )
        if not self.started:
            self._send_head(length=None)
        for frame in frames.encode_body(self._invocation, bytes(part)):
            self._sock.sendall(frame)

    def error(self, status: int, message: str) -> None:
        body = message.encode(errors="replace")
        self._headers = {"content-type": TEXT}
        self._context = None
        self._status = status
        self.whole(body)
        self.end()

    def end(self) -> None:
        if self._headers and not self.started:
            self._send_head(length=None)
        self._sock.sendall(frames.encode(Kind.END, self._invocation))

    def abort(self) -> None:
        self._sock.sendall(frames.encode(Kind.ABORT, self._invocation))

    def _send_head(self, *, length: int | None) -> None:
        if self._context is not None:
            set_by_user = self._context.get_response_headers()
            forwarded = (FORWARDED_HEADERS | {"content-type"}) & set_by_user.keys()
            self._headers |= {name: set_by_user[name] for name in forwarded}
            self._status = self._context.get_response_status()[0]
        head = ReplyHead(status=self._status, headers=self._headers, length=length)
        self._sock.sendall(frames.encode(Kind.HEAD, self._invocation, head.encode()))
        self.started = True


async def pump(parts: AsyncIterator[Any], reply: Reply) -> None:
    import asyncio

    try:
        async for part in parts:
            # It blocks the loop while the client is slow. That is what holds the user's other tasks back too.
            reply.part(part)
            # A generator that never waits would otherwise never hear that it is cancelled.
            await asyncio.sleep(0)
    finally:
        close = getattr(parts, "aclose", None)
        if close is not None:
            await close()
