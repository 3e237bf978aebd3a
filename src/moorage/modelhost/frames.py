"""What the front and a worker say to each other: bytes <-> frames, no I/O.

A frame is a length, a kind, the number of the invocation it belongs to, and a payload:

    front  -> worker    HEAD BODY* END             one invocation: headers, then its body
                        CANCEL                     the client has gone
                        SHUTDOWN                   finish and leave (end of file means: leave at once)
    worker -> front     READY | FAILED             the model is loaded, or why it is not
                        HEAD BODY* (END | ABORT)   one reply; ABORT breaks a reply that has begun

A worker holds one invocation at a time, so the socket's own buffer is the flow control: a front that stops
reading stops the worker that sends. Every invocation is answered by exactly one END or ABORT, also after
CANCEL; that is how the front knows that the worker is free again.
"""

import json
import signal
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import IntEnum

# Parts larger than this are split, so that neither side buffers a whole body to decode one frame.
MAX_BODY_BYTES = 256 * 1024

# Before the front kills a worker that takes too long it sends this one, which makes the worker print every
# thread's stack: the log then shows where it was stuck.
DUMP_SIGNAL = signal.SIGRTMIN + 4

_PREFIX = struct.Struct("!IBI")


class Kind(IntEnum):
    READY = 1
    FAILED = 2
    HEAD = 3
    BODY = 4
    END = 5
    ABORT = 6
    CANCEL = 7
    SHUTDOWN = 8


@dataclass(frozen=True, slots=True)
class Frame:
    kind: Kind
    invocation: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """Header names are lower case."""

    headers: dict[str, str]

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, payload: bytes) -> "RequestHead":
        return cls(**json.loads(payload))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyHead:
    """`length` is None for a stream, whose length nobody knows yet."""

    status: int
    headers: dict[str, str]
    length: int | None

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, payload: bytes) -> "ReplyHead":
        return cls(**json.loads(payload))


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a worker could not load the model; `detail` is the traceback."""

    sentence: str
    detail: str

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, payload: bytes) -> "Failure":
        return cls(**json.loads(payload))


def encode(kind: Kind, invocation: int = 0, payload: bytes | memoryview = b"") -> bytes:
    return b"".join((_PREFIX.pack(len(payload), kind, invocation), payload))


def encode_body(invocation: int, body: bytes) -> Iterator[bytes]:
    """The body as frames of bounded size; none for an empty one."""
    view = memoryview(body)
    for start in range(0, len(view), MAX_BODY_BYTES):
        yield encode(Kind.BODY, invocation, view[start : start + MAX_BODY_BYTES])


class Decoder:
    """Takes bytes as they come, gives whole frames. What is incomplete waits inside."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        self._buffer += data
        frames = []
        start = 0
        while len(self._buffer) - start >= _PREFIX.size:
            length, kind, invocation = _PREFIX.unpack_from(self._buffer, start)
            end = start + _PREFIX.size + length
            if len(self._buffer) < end:
                break
            payload = bytes(memoryview(self._buffer)[start + _PREFIX.size : end])
            frames.append(Frame(Kind(kind), invocation, payload))
            start = end
        del self._buffer[:start]
        return frames
