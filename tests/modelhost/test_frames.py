import pytest

from moorage.modelhost import frames
from moorage.modelhost.frames import Decoder, Frame, Kind, ReplyHead

WIRE = frames.encode(Kind.HEAD, 7, b"{}") + frames.encode(Kind.BODY, 7, b"abc") + frames.encode(Kind.END, 7)
FRAMES = [Frame(Kind.HEAD, 7, b"{}"), Frame(Kind.BODY, 7, b"abc"), Frame(Kind.END, 7, b"")]


def test_decodes_frames_that_come_together() -> None:
    assert Decoder().feed(WIRE) == FRAMES


def test_decodes_frames_that_come_byte_by_byte() -> None:
    decoder = Decoder()
    assert [frame for byte in WIRE for frame in decoder.feed(bytes([byte]))] == FRAMES


@pytest.mark.parametrize("cut", range(1, len(WIRE)))
def test_what_is_incomplete_waits_for_the_rest(cut: int) -> None:
    decoder = Decoder()
    assert decoder.feed(WIRE[:cut]) + decoder.feed(WIRE[cut:]) == FRAMES


def test_a_large_body_becomes_frames_of_bounded_size() -> None:
    body = bytes(range(256)) * 4096
    wire = list(frames.encode_body(1, body))
    assert max(map(len, wire)) <= frames.MAX_BODY_BYTES + 16
    assert b"".join(frame.payload for frame in Decoder().feed(b"".join(wire))) == body


def test_an_empty_body_is_no_frame() -> None:
    assert list(frames.encode_body(1, b"")) == []


def test_a_head_survives_the_wire() -> None:
    head = ReplyHead(status=200, headers={"content-type": "text/plain"}, length=None)
    assert ReplyHead.decode(head.encode()) == head
