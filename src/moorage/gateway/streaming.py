"""InvokeEndpointWithResponseStream: the container's bytes as they come, framed as events.

Until the first byte of the container's reply all is as for InvokeEndpoint, and a failure is a plain HTTP error.
From then on a failure can only be told inside the stream: as an exception event, always before the end, because
clients take a stream that just ends for a complete one.
"""

import asyncio
import math
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from moorage.auth.verifier import Claim
from moorage.errors import OUR_FAULT, ServiceError, ServiceUnavailable
from moorage.gateway.dispatch import InvocationCall
from moorage.gateway.request import Request
from moorage.wire import eventstream
from moorage.wire import invocation as wire

if TYPE_CHECKING:
    from moorage.gateway.front import GatewayFront


class StreamCall(InvocationCall):
    """One call of InvokeEndpointWithResponseStream."""

    __slots__ = ("_first_chunk_at", "_flush", "_frames", "_streaming", "_whole_deadline")

    operation: ClassVar = wire.STREAM
    # The two that InvokeEndpoint has for these are not in the model of this operation.
    no_table_error: ClassVar[type[ServiceError]] = ServiceUnavailable
    not_ready_error: ClassVar[type[ServiceError]] = ServiceUnavailable

    def __init__(self, front: "GatewayFront", request: Request, claim: Claim, raw_name: bytes) -> None:
        super().__init__(front, request, claim, raw_name)
        self._streaming = False
        self._first_chunk_at = 0.0  # until it has been passed on
        self._frames: list[bytes] = []  # made in this turn of the loop, and written at its end
        self._flush: asyncio.Handle | None = None
        self._whole_deadline = math.inf

    def end(self) -> None:
        super().end()
        self._whole_deadline = self._front.loop.time() + self._front.settings.stream_timeout_seconds

    def pause_reply(self) -> None:
        """The client does not read fast enough, so neither do we: what is buffered stays bounded."""
        if self._connection is not None:
            self._connection.pause_reading()

    def resume_reply(self) -> None:
        if self._connection is not None:
            self._connection.resume_reading()

    # --- the container replies ------------------------------------------------------------------------

    def reply_head(self, status: int, headers: dict[bytes, bytes]) -> None:
        self._reply_status = status
        self._reply_headers = headers

    def reply_data(self, chunk: bytes) -> None:
        if self._reply_status >= 300:
            super().reply_data(chunk)
            return
        if not self._streaming:
            self._first_chunk_at = monotonic()
            self._begin_stream()
        self._frames += eventstream.encode_payload_parts(chunk)
        if self._flush is None:
            self._flush = self._front.loop.call_soon(self._write)

    def reply_end(self) -> None:
        if self._reply_status >= 300:
            super().reply_end()
            return
        replied_at = monotonic()
        self._connection = None
        self._leave()
        if not self._streaming:
            self._begin_stream()
        self._end_stream()
        self._count_answer(replied_at)

    def reply_broken(self, *, untouched: bool, reason: str) -> None:
        if not self._streaming:
            super().reply_broken(untouched=untouched, reason=reason)
            return
        self._connection = None
        origin = self._origin()
        self._break_stream(
            "ModelStreamError",
            {
                "Message": f"An error occurred while streaming the response from {origin.container_hostname}: "
                f"{reason}. {origin.see}",
                "ErrorCode": "StreamBroken",
            },
        )

    def reply_failed(self) -> None:
        if not self._streaming:
            super().reply_failed()
            return
        self._connection = None
        self._break_stream("InternalStreamFailure", {"Message": OUR_FAULT})

    def expire(self) -> None:
        if not self._streaming:
            super().expire()
            return
        message = (
            f"Your model {self._origin().container_hostname} did not complete sending the inference response "
            "in the allotted time."
        )
        self._break_stream(
            "ModelStreamError", {"Message": message, "ErrorCode": "ModelInvocationTimeExceeded"}
        )

    # --- the stream -----------------------------------------------------------------------------------

    def _begin_stream(self) -> None:
        assert self._variant is not None
        self._streaming = True
        self.deadline = self._whole_deadline
        self._request.begin_reply(
            200,
            b"Content-Type: application/vnd.amazon.eventstream\r\nTransfer-Encoding: chunked\r\n"
            b"x-Amzn-Invoked-Production-Variant: %b\r\n%b"
            % (
                self._variant.name.encode(),
                wire.render_reply_headers(self.operation, self._reply_headers),
            ),
        )

    def _write(self) -> None:
        """Write what this turn of the loop has framed, as one HTTP chunk."""
        self._flush = None
        if self._frames:
            frames = b"".join(self._frames)
            self._frames.clear()
            self._request.write(b"%x\r\n%b\r\n" % (len(frames), frames))
            if self._first_chunk_at:
                self._count_first_chunk()

    def _end_stream(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
        self._write()
        self._request.write(b"0\r\n\r\n")
        self._request.end_reply()

    def _break_stream(self, exception_type: str, members: dict[str, str]) -> None:
        """Tell the client what broke, after everything that came before it, and end."""
        assert self._variant is not None
        self._variant.counts.broke_off(by_model=exception_type == "ModelStreamError")
        self._give_up()
        self._frames.append(eventstream.encode_exception(exception_type, members))
        self._end_stream()

    def _count_first_chunk(self) -> None:
        assert self._variant is not None
        model_seconds = self._first_chunk_at - self._sent_at
        self._variant.counts.first_chunk(model_seconds, monotonic() - self._request.received_at)
        self._first_chunk_at = 0.0

    def _leave(self) -> None:
        self._release()
        self._front.timed_calls.discard(self)

    def _give_up(self) -> None:
        super()._give_up()
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
