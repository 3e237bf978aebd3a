"""`application/vnd.amazon.eventstream`: messages ↔ bytes.

A message on the wire, all numbers big-endian, both checksums CRC-32 as in zlib:

    total length (4) · headers' length (4) · checksum of these 8 bytes (4)
    headers: name's length (1) · name · type (1) · value, one after the other
    payload
    checksum of everything before it (4)

Sources: botocore's decoder (`botocore.eventstream`); the byte-exact messages in botocore's own tests.
"""

import json
import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zlib import crc32

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"

MAX_PART_BYTES: Final = 1024 * 1024
"""A payload part is never larger than this; a bigger chunk of a container is cut."""

_OVERHEAD: Final = 16
_PRELUDE: Final = struct.Struct(">II")
_UINT32: Final = struct.Struct(">I")
_MAX_HEADERS_BYTES: Final = 128 * 1024
_MAX_PAYLOAD_BYTES: Final = 24 * 1024 * 1024
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class InvalidMessage(ValueError):
    """The bytes are no message: a checksum, a length or a header is wrong."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message. Header values: bool, int, bytes, str, datetime or UUID, after their type on the wire."""

    headers: Mapping[str, Any]
    payload: bytes


def string_headers(headers: Mapping[str, str]) -> bytes:
    """The wire form of headers whose values are strings."""
    parts = []
    for name, value in headers.items():
        raw_name, raw_value = name.encode(), value.encode()
        parts.append(
            struct.pack(">B", len(raw_name)) + raw_name + struct.pack(">BH", 7, len(raw_value)) + raw_value
        )
    return b"".join(parts)


def encode(headers: bytes, payload: bytes) -> bytes:
    """A whole message, from headers in their wire form."""
    prelude = _PRELUDE.pack(_OVERHEAD + len(headers) + len(payload), len(headers))
    head = prelude + _UINT32.pack(crc32(prelude)) + headers
    return b"%b%b%b" % (head, payload, _UINT32.pack(crc32(payload, crc32(head))))


_PART_HEADERS: Final = string_headers(
    {
        ":event-type": "PayloadPart",
        ":content-type": "application/octet-stream",
        ":message-type": "event",
    }
)


def encode_payload_part(chunk: bytes) -> bytes:
    """An event of the response stream that carries some bytes of the model's reply."""
    return encode(_PART_HEADERS, chunk)


def encode_payload_parts(chunk: bytes) -> list[bytes]:
    """The same for a chunk of any size: one part, or several where one would be larger than is allowed."""
    if len(chunk) <= MAX_PART_BYTES:
        return [encode(_PART_HEADERS, chunk)]
    view = memoryview(chunk)
    return [
        encode(_PART_HEADERS, bytes(view[start : start + MAX_PART_BYTES]))
        for start in range(0, len(chunk), MAX_PART_BYTES)
    ]


def encode_exception(exception_type: str, members: Mapping[str, str]) -> bytes:
    """A modelled exception inside the stream. Clients look for `Message` with a capital M."""
    headers = {
        ":exception-type": exception_type,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return encode(string_headers(headers), json.dumps(members, separators=(",", ":")).encode())


class Decoder:
    """Turns bytes, cut anywhere, into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def is_between_messages(self) -> bool:
        """Whether all that was fed made whole messages; a stream that ends otherwise was cut."""
        return not self._buffer

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete now.

        Raises:
            InvalidMessage: the bytes are none; nothing after them can be trusted.
        """
        self._buffer += data
        messages = []
        while (length := self._next_length()) is not None:
            raw = bytes(self._buffer[:length])
            del self._buffer[:length]
            messages.append(decode(raw))
        return messages

    def _next_length(self) -> int | None:
        """The length of the message at the front if all of it is here. The prelude is checked at once, so that
        nonsense is not waited for."""
        if len(self._buffer) < 12:
            return None
        total, _ = _check_prelude(self._buffer[:12])
        return total if len(self._buffer) >= total else None


def decode(raw: bytes) -> Message:
    """One whole message.

    Raises:
        InvalidMessage: it is none.
    """
    if len(raw) < _OVERHEAD:
        raise InvalidMessage(f"a message has at least {_OVERHEAD} bytes, not {len(raw)}")
    total, headers_length = _check_prelude(raw[:12])
    if total != len(raw):
        raise InvalidMessage(f"the message says it has {total} bytes, but it has {len(raw)}")
    (checksum,) = _UINT32.unpack(raw[-4:])
    if checksum != crc32(raw[:-4]):
        raise InvalidMessage("the checksum of the message does not match")
    end = 12 + headers_length
    return Message(_decode_headers(raw[12:end]), raw[end:-4])


def _check_prelude(prelude: bytes | bytearray) -> tuple[int, int]:
    total, headers_length = _PRELUDE.unpack_from(prelude)
    (checksum,) = _UINT32.unpack_from(prelude, 8)
    if checksum != crc32(prelude[:8]):
        raise InvalidMessage("the checksum of the prelude does not match")
    if headers_length > _MAX_HEADERS_BYTES:
        raise InvalidMessage(f"headers of {headers_length} bytes are more than {_MAX_HEADERS_BYTES}")
    if total - headers_length - _OVERHEAD > _MAX_PAYLOAD_BYTES:
        raise InvalidMessage(f"a message of {total} bytes has more than {_MAX_PAYLOAD_BYTES} of payload")
    if total < headers_length + _OVERHEAD:
        raise InvalidMessage(f"headers of {headers_length} bytes do not fit into a message of {total}")
    return total, headers_length


_FIXED: Final[Mapping[int, struct.Struct]] = {
    2: struct.Struct(">b"),
    3: struct.Struct(">h"),
    4: struct.Struct(">i"),
    5: struct.Struct(">q"),
    8: struct.Struct(">q"),
}


def _decode_headers(raw: bytes) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    position = 0
    try:
        while position < len(raw):
            name_end = position + 1 + raw[position]
            name = _exactly(raw, position + 1, name_end).decode()
            if name in headers:
                raise InvalidMessage(f"the header {name} is given twice")
            headers[name], position = _decode_value(raw, name_end + 1, raw[name_end])
    except (IndexError, OverflowError, struct.error, UnicodeDecodeError) as error:
        raise InvalidMessage(f"the headers are malformed: {error}") from error
    return headers


def _decode_value(raw: bytes, start: int, kind: int) -> tuple[Any, int]:
    """The value and where it ends."""
    if kind in (0, 1):
        return kind == 0, start
    if kind in _FIXED:
        (number,) = _FIXED[kind].unpack_from(raw, start)
        end = start + _FIXED[kind].size
        return (_EPOCH + timedelta(milliseconds=number) if kind == 8 else number), end
    if kind in (6, 7):
        (length,) = struct.unpack_from(">H", raw, start)
        value = _exactly(raw, start + 2, start + 2 + length)
        return (value if kind == 6 else value.decode()), start + 2 + length
    if kind == 9:
        return uuid.UUID(bytes=_exactly(raw, start, start + 16)), start + 16
    raise InvalidMessage(f"a header has the type {kind}, which there is none of")


def _exactly(raw: bytes, start: int, end: int) -> bytes:
    if end > len(raw):
        raise IndexError("a header ends outside the headers")
    return raw[start:end]
