"""RecordIO-protobuf: what is written is read back, and the bytes are those of protobuf and of MXNet's framing."""

import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.modelhost import recordio
from moorage.modelhost.recordio import Bytes, Record, Tensor

UINT64 = st.integers(0, 2**64 - 1)
NUMBERS = {
    "f": st.floats(width=32, allow_nan=False),
    "d": st.floats(allow_nan=False),
    "i": st.integers(-(2**31), 2**31 - 1),
}
TENSORS = st.sampled_from("fdi").flatmap(
    lambda code: st.builds(
        Tensor,
        st.lists(NUMBERS[code]).map(lambda values: array(code, values)),
        st.lists(UINT64).map(tuple),
        st.lists(UINT64).map(tuple),
    )
)
TEXTS = st.none() | st.text()
VALUES = TENSORS | st.builds(Bytes, st.lists(st.binary()).map(tuple), TEXTS)
RECORDS = st.builds(
    Record, st.dictionaries(st.text(), VALUES), st.dictionaries(st.text(), VALUES), TEXTS, TEXTS, TEXTS
)

# One field on each line.
FRAME = bytes.fromhex("0a23d7ce 3d000000")  # the magic number, and 61 bytes
MESSAGE = bytes.fromhex(
    "0a 16"  # features, 22 bytes
    "0a 06 76616c756573"  # the key "values"
    "12 0c 12 0a"  # the value, a float32_tensor of 10 bytes
    "0a 08 0000803f 000000c0"  # values: 1 and -2
    "12 20"  # label, 32 bytes
    "0a 06 76616c756573"
    "12 16 3a 14"  # the value, an int32_tensor of 20 bytes
    "0a 0c ffffffffffffffffff01 ac02"  # values: -1 and 300
    "12 01 02"  # keys: 2
    "1a 01 07"  # shape: 7
    "1a 01 75"  # uid
)
PADDING = bytes(3)
RECORD = Record(
    {"values": recordio.float32([1, -2])},
    {"values": Tensor(array("i", [-1, 300]), (2,), (7,))},
    uid="u",
)
MAGIC = FRAME[:4]


def frame(flag: int, content: bytes) -> bytes:
    return MAGIC + struct.pack("<I", flag << 29 | len(content)) + content + bytes(-len(content) % 4)


def test_the_bytes_are_those_of_the_format() -> None:
    assert recordio.write([RECORD]) == FRAME + MESSAGE + PADDING
    assert list(recordio.read(FRAME + MESSAGE)) == [RECORD], "the last one needs no padding"


def test_numbers_that_are_not_packed_are_read_too() -> None:
    tensor = bytes.fromhex("0d 0000803f  0d 000000c0  10 02  10 03  18 07")
    value = b"\x12" + bytes([len(tensor)]) + tensor
    entry = b"\x0a\x01v\x12" + bytes([len(value)]) + value
    (record,) = recordio.read(frame(0, b"\x0a" + bytes([len(entry)]) + entry))
    assert record.features == {"v": recordio.float32([1, -2], keys=[2, 3], shape=[7])}


def test_a_record_that_was_divided_where_it_has_the_magic_number() -> None:
    record = Record({"v": Bytes((b"abc" + MAGIC + b"de" + MAGIC,))})
    parts = recordio.write([record])[len(FRAME) :].removesuffix(PADDING).split(MAGIC)
    written = frame(1, parts[0]) + frame(2, parts[1]) + frame(3, parts[2].rstrip(b"\0"))
    assert list(recordio.read(written)) == [record]


def test_frames_that_belong_to_no_record_are_refused() -> None:
    for frames in (
        frame(3, MESSAGE),
        frame(1, MESSAGE),
        frame(1, b"") + frame(0, MESSAGE),
        frame(5, MESSAGE),
    ):
        with pytest.raises(ValueError):
            list(recordio.read(frames))


@given(st.lists(RECORDS, max_size=4))
def test_what_is_written_is_read(records: list[Record]) -> None:
    assert list(recordio.read(recordio.write(records))) == records


@given(st.lists(RECORDS, max_size=2), st.data())
def test_what_is_cut_off_is_refused_or_a_beginning(records: list[Record], data: st.DataObject) -> None:
    written = recordio.write(records)
    end = data.draw(st.integers(0, len(written)))
    try:
        read = list(recordio.read(written[:end]))
    except ValueError:
        return
    assert read == records[: len(read)]


@given(st.binary())
def test_other_bytes_are_refused_by_value_error(data: bytes) -> None:
    for framed in (data, struct.pack("<II", 0xCED7230A, len(data)) + data):
        try:
            list(recordio.read(framed))
        except ValueError:
            continue
