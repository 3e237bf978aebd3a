"""What the front and a worker say to each other: one message is one packet of their SOCK_SEQPACKET pair.

    front  -> worker    CONNECTION slot + descriptor    an invocation waits on it; it has the worker's turn
                        GO slot                         the turn, for a connection that said READY
                        TIDY                            close what nobody has used since the last of these
                        SHUTDOWN                        serve what is there and leave (end of file: leave at once)
    worker -> front     LOADED | FAILED                 the model is loaded, or why it is not
                                                        (LOADED has KEEPS where connections stay with the worker)
                        RETURNED slot                   answered; the front is to wait for its next request
                        CLOSED slot                     no more is to come of this connection
                        WAITING slot                    its body is still on the way; the turn is free
                        READY slot                      now it is there
                        DRAINED                         what was there is served, all connections are closed

A slot is a number for a connection that both sides know it by, and the place of its state in `shared`. Where
connections stay with the worker, only CONNECTION and CLOSED are about them.
"""

import json
import signal
import struct
from dataclasses import dataclass
from enum import IntEnum

# Before the front kills a worker that takes too long it sends this one, which makes the worker print every
# thread's stack: the log then shows where it was stuck.
DUMP_SIGNAL = signal.SIGRTMIN + 4

MAX_BYTES = 128 * 1024
KEEPS = b"keeps"

_PREFIX = struct.Struct("!BI")
_MAX_SENTENCE, _MAX_DETAIL = 1_000, 20_000  # JSON may make six bytes of a character


class Kind(IntEnum):
    CONNECTION = 1
    GO = 2
    TIDY = 3
    SHUTDOWN = 4
    LOADED = 5
    FAILED = 6
    RETURNED = 7
    CLOSED = 8
    WAITING = 9
    READY = 10
    DRAINED = 11


@dataclass(frozen=True, slots=True)
class Message:
    kind: Kind
    slot: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a worker could not load the model; `detail` is the traceback."""

    sentence: str
    detail: str

    def encode(self) -> bytes:
        """Of a detail that is too long for a message the end is kept."""
        cut = {"sentence": self.sentence[:_MAX_SENTENCE], "detail": self.detail[-_MAX_DETAIL:]}
        return json.dumps(cut).encode()

    @classmethod
    def decode(cls, payload: bytes) -> "Failure":
        return cls(**json.loads(payload))


def encode(kind: Kind, slot: int = 0, payload: bytes = b"") -> bytes:
    return _PREFIX.pack(kind, slot) + payload


def decode(packet: bytes) -> Message:
    kind, slot = _PREFIX.unpack_from(packet)
    return Message(Kind(kind), slot, packet[_PREFIX.size :])
