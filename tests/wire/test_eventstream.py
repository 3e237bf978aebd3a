"""The event stream codec against byte-exact messages, and against botocore's own parser."""

import json
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from moorage.wire import eventstream
from moorage.wire.eventstream import Decoder, InvalidMessage, Message

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "eventstream.json").read_text())
GOOD, BAD = VECTORS["good"], VECTORS["bad"]

# A part with the payload "hi", and a modelled exception: made and decoded with the real client.
PART = bytes.fromhex(
    "0000006b00000059997770650b3a6576656e742d7479706507000b5061796c6f6164506172740d3a636f6e74656e742d74797065"
    "0700186170706c69636174696f6e2f6f637465742d73747265616d0d3a6d6573736167652d747970650700056576656e746869f0"
    "e10a16"
)
EXCEPTION = bytes.fromhex(
    "000000980000005e0887cf4b0f3a657863657074696f6e2d747970650700104d6f64656c53747265616d4572726f720d3a636f6e"
    "74656e742d747970650700106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d7479706507000965786365707469"
    "6f6e7b224d657373616765223a226d222c224572726f72436f6465223a2253747265616d42726f6b656e227d5d2db3a1"
)


def expected(case: dict[str, Any]) -> Message:
    """The vectors are as botocore decodes: time as milliseconds, UUID as bytes."""
    headers = {}
    for name, value in case["headers"].items():
        headers[name] = bytes.fromhex(value["hex"]) if isinstance(value, dict) else value
    if "8" in headers:
        headers["8"] = datetime.fromtimestamp(headers["8"] / 1000, UTC)
        headers["9"] = uuid.UUID(bytes=headers["9"])
    return Message(headers, case["payload"].encode())


def frame(headers: bytes, payload: bytes = b"") -> bytes:
    return eventstream.encode(headers, payload)


def test_encoding_is_byte_exact() -> None:
    assert eventstream.encode_payload_part(b"hi") == PART
    assert (
        eventstream.encode_exception("ModelStreamError", {"Message": "m", "ErrorCode": "StreamBroken"})
        == EXCEPTION
    )


@pytest.mark.parametrize("name", GOOD)
def test_good_messages_whole_bytewise_and_with_more_behind(name: str) -> None:
    raw, message = bytes.fromhex(GOOD[name]["message"]), expected(GOOD[name])
    assert Decoder().feed(raw) == [message]
    decoder = Decoder()
    assert [each for byte in raw for each in decoder.feed(bytes([byte]))] == [message]
    assert decoder.is_between_messages
    assert decoder.feed(raw + raw[:7]) == [message]
    assert not decoder.is_between_messages


def test_all_good_messages_in_one_stream() -> None:
    stream = b"".join(bytes.fromhex(case["message"]) for case in GOOD.values())
    assert Decoder().feed(stream) == [expected(case) for case in GOOD.values()]


@pytest.mark.parametrize("name", BAD)
def test_bad_messages_are_refused(name: str) -> None:
    raw = bytes.fromhex(BAD[name])
    with pytest.raises(InvalidMessage):
        Decoder().feed(raw)
    decoder = Decoder()
    with pytest.raises(InvalidMessage):
        for byte in raw:
            decoder.feed(bytes([byte]))


def test_a_payload_that_is_too_long_is_refused_before_it_is_here() -> None:
    prelude = (25 * 1024 * 1024).to_bytes(4, "big") + bytes(4)
    with pytest.raises(InvalidMessage, match="payload"):
        Decoder().feed(prelude + crc32(prelude).to_bytes(4, "big"))


@pytest.mark.parametrize(
    "headers",
    [
        b"\x05ab",
        b"\x01a\x0a",
        b"\x01a\x07\x00\x09xy",
        b"\x01a\x04\x00",
        b"\x01\xff\x00",
        b"\x01a\x09short",
        b"\x01a",
    ],
)
def test_malformed_headers_are_refused(headers: bytes) -> None:
    with pytest.raises(InvalidMessage):
        eventstream.decode(frame(headers))


def test_a_time_that_no_calendar_has_is_refused() -> None:
    with pytest.raises(InvalidMessage):
        eventstream.decode(frame(b"\x01t\x08" + b"\x7f" * 8))


def test_every_flipped_bit_is_noticed() -> None:
    for position in range(len(PART) * 8):
        damaged = bytearray(PART)
        damaged[position // 8] ^= 1 << position % 8
        decoder = Decoder()
        try:
            messages = decoder.feed(bytes(damaged))
        except InvalidMessage:
            continue
        assert messages == [], position


@pytest.mark.parametrize(
    "size", [0, 1, eventstream.MAX_PART_BYTES, eventstream.MAX_PART_BYTES + 1, 5 * 1024 * 1024]
)
def test_large_chunks_are_cut_and_no_other(size: int) -> None:
    chunk = bytes(range(256)) * (size // 256) + bytes(size % 256)
    parts = eventstream.encode_payload_parts(chunk)
    assert len(parts) == max(1, -(-size // eventstream.MAX_PART_BYTES))
    payloads = [message.payload for message in Decoder().feed(b"".join(parts))]
    assert b"".join(payloads) == chunk
    assert all(len(payload) <= eventstream.MAX_PART_BYTES for payload in payloads)


@given(st.lists(st.binary(max_size=300), max_size=20), st.lists(st.integers(1, 200), min_size=1))
def test_botocore_reads_what_we_write_however_it_is_cut(chunks: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(eventstream.encode_payload_part(chunk) for chunk in chunks)
    theirs, ours, decoder = EventStreamBuffer(), [], Decoder()
    read, position, turn = [], 0, 0
    while position < len(stream):
        piece = stream[position : position + cuts[turn % len(cuts)]]
        theirs.add_data(piece)
        read += [message.payload for message in theirs]
        ours += [message.payload for message in decoder.feed(piece)]
        position, turn = position + len(piece), turn + 1
    assert read == ours == chunks


@given(st.binary(max_size=400))
def test_arbitrary_bytes_make_no_trouble(data: bytes) -> None:
    with suppress(InvalidMessage):
        Decoder().feed(data)
