"""RecordIO-protobuf, SageMaker's binary format: frames of MXNet's RecordIO, and in each a protobuf message `Record`.

    message Float32Tensor { repeated float values = 1; repeated uint64 keys = 2; repeated uint64 shape = 3; }
    message Float64Tensor   the same with double, and Int32Tensor the same with int32; all of them are packed
    message Bytes { repeated bytes value = 1; string content_type = 2; }
    message Value { oneof value { Float32Tensor float32_tensor = 2; Float64Tensor float64_tensor = 3;
                                  Int32Tensor int32_tensor = 7; Bytes bytes = 9; } }
    message Record { map<string, Value> features = 1; map<string, Value> label = 2; string uid = 3;
                     string metadata = 4; string configuration = 5; }

https://docs.aws.amazon.com/sagemaker/latest/dg/cdf-training.html, https://protobuf.dev/programming-guides/encoding/
and https://mxnet.apache.org/versions/1.9.1/api/architecture/note_data_loading. It needs no package.
"""

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_MAGIC: Final = 0xCED7230A
_MAGIC_BYTES: Final = _MAGIC.to_bytes(4, "little")
_HEADER: Final = struct.Struct("<II")
_LENGTH_BITS: Final = 29
_LONGEST: Final = 2**_LENGTH_BITS - 1

# What the three bits above the length say of a frame. The parts of a record are joined by the magic number, since a
# writer divides records where they contain it.
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)

_VARINT, _DELIMITED = 0, 2
_FIXED_SIZES: Final = {1: 8, 5: 4}

_FIELD_OF_TYPECODE: Final = {"f": 2, "d": 3, "i": 7}
_TYPECODE_OF_FIELD: Final = {number: code for code, number in _FIELD_OF_TYPECODE.items()}
_FIELD_OF_BYTES: Final = 9
_TEXTS: Final = {3: "uid", 4: "metadata", 5: "configuration"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """Dense without `keys`; else `keys` are the places of the values in a row of `shape`."""

    values: "array[Any]"
    """Its typecode chooses the message: "f" float32, "d" float64, "i" int32."""
    keys: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Bytes:
    values: tuple[bytes, ...]
    content_type: str | None = None


Value = Tensor | Bytes


@dataclass(frozen=True, slots=True)
class Record:
    features: Mapping[str, Value] = field(default_factory=dict)
    label: Mapping[str, Value] = field(default_factory=dict)
    uid: str | None = None
    metadata: str | None = None
    configuration: str | None = None


def float32(values: Iterable[float], *, keys: Iterable[int] = (), shape: Iterable[int] = ()) -> Tensor:
    return Tensor(array("f", values), tuple(keys), tuple(shape))


def read(data: bytes) -> Iterator[Record]:
    """ValueError where `data` is something else."""
    return map(_record, _messages(data))


def write(records: Iterable[Record]) -> bytes:
    return b"".join(_frame(_message(record)) for record in records)


# Frames.


def _messages(data: bytes) -> Iterator[memoryview]:
    view = memoryview(data)
    parts: list[memoryview] = []
    start = 0
    while start < len(view):
        flag, content = _content(view, start)
        if flag > _LAST or (flag in (_WHOLE, _FIRST)) != (not parts):
            raise ValueError(f"the frame at byte {start} continues no record")
        parts.append(content)
        start += _HEADER.size + len(content) + -len(content) % 4
        if flag in (_WHOLE, _LAST):
            yield parts[0] if len(parts) == 1 else memoryview(_MAGIC_BYTES.join(parts))
            parts = []
    if parts:
        raise ValueError("the last record is cut off")


def _content(view: memoryview, start: int) -> tuple[int, memoryview]:
    """The flag and the content of the frame at `start`."""
    if len(view) < start + _HEADER.size:
        raise ValueError(f"the frame at byte {start} is cut off")
    magic, word = _HEADER.unpack_from(view, start)
    if magic != _MAGIC:
        raise ValueError(f"byte {start} begins no RecordIO frame")
    start += _HEADER.size
    content = view[start : start + (word & _LONGEST)]
    if len(content) < word & _LONGEST:
        raise ValueError(f"the frame at byte {start - _HEADER.size} is cut off")
    return word >> _LENGTH_BITS, content


def _frame(message: bytes) -> bytes:
    if len(message) > _LONGEST:
        raise ValueError(f"a record has {len(message)} bytes, but a frame holds {_LONGEST}")
    return _HEADER.pack(_MAGIC, len(message)) + message + bytes(-len(message) % 4)


# Reading messages.


def _record(message: memoryview) -> Record:
    features: dict[str, Value] = {}
    label: dict[str, Value] = {}
    texts: dict[str, str] = {}
    for number, content in _fields(message):
        if number in (1, 2):
            name, value = _entry(_view(content))
            (features if number == 1 else label)[name] = value
        elif number in _TEXTS:
            texts[_TEXTS[number]] = _text(content)
    return Record(features, label, **texts)


def _entry(message: memoryview) -> tuple[str, Value]:
    """Of a map."""
    name = ""
    value: Value = Tensor(array("f"))
    for number, content in _fields(message):
        if number == 1:
            name = _text(content)
        elif number == 2:
            value = _value(_view(content))
    return name, value


def _value(message: memoryview) -> Value:
    """The last one counts; a message without any is an empty tensor."""
    value: Value = Tensor(array("f"))
    for number, content in _fields(message):
        if number in _TYPECODE_OF_FIELD:
            value = _tensor(_TYPECODE_OF_FIELD[number], _view(content))
        elif number == _FIELD_OF_BYTES:
            value = _bytes(_view(content))
    return value


def _tensor(typecode: str, message: memoryview) -> Tensor:
    values: array[Any] = array(typecode)
    keys: list[int] = []
    shape: list[int] = []
    for number, content in _fields(message):
        match number:
            case 1 if typecode == "i":
                values.extend(map(_signed, _varints(content)))
            case 1:
                values.frombytes(_view(content))
            case 2:
                keys.extend(_varints(content))
            case 3:
                shape.extend(_varints(content))
    if typecode != "i":
        _swap(values)
    return Tensor(values, tuple(keys), tuple(shape))


def _bytes(message: memoryview) -> Bytes:
    values = []
    content_type = None
    for number, content in _fields(message):
        if number == 1:
            values.append(bytes(_view(content)))
        elif number == 2:
            content_type = _text(content)
    return Bytes(tuple(values), content_type)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The number of each field with its content: an int of a varint, else bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        wire_type = tag & 7
        if wire_type == _VARINT:
            number, at = _varint(message, at)
            yield tag >> 3, number
            continue
        if wire_type == _DELIMITED:
            size, at = _varint(message, at)
        elif wire_type in _FIXED_SIZES:
            size = _FIXED_SIZES[wire_type]
        else:
            raise ValueError(f"a record has a field of the unknown wire type {wire_type}")
        content = message[at : at + size]
        if len(content) < size:
            raise ValueError("a record has a field that is cut off")
        at += size
        yield tag >> 3, content


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends."""
    number = 0
    for position, byte in enumerate(message[at : at + 10]):
        number |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            return number & (2**64 - 1), at + position + 1
    raise ValueError("a record has a number that is cut off or too long")


def _varints(content: int | memoryview) -> Iterator[int]:
    """Of a repeated field: packed, or one of several."""
    if isinstance(content, int):
        yield content
        return
    at = 0
    while at < len(content):
        number, at = _varint(content, at)
        yield number


def _signed(number: int) -> int:
    """An int32 of the lowest bits, as protobuf reads one."""
    return ((number + 2**31) & (2**32 - 1)) - 2**31


def _view(content: int | memoryview) -> memoryview:
    if isinstance(content, int):
        raise ValueError("a record has a field of another type than Record's")
    return content


def _text(content: int | memoryview) -> str:
    return bytes(_view(content)).decode()


def _swap(values: "array[Any]") -> None:
    """From or to the order of bytes on the wire."""
    if sys.byteorder == "big":
        values.byteswap()


# Writing messages.


def _message(record: Record) -> bytes:
    parts = [_delimited(1, _entry_message(*entry)) for entry in record.features.items()]
    parts += [_delimited(2, _entry_message(*entry)) for entry in record.label.items()]
    for number, name in _TEXTS.items():
        text = getattr(record, name)
        if text is not None:
            parts.append(_delimited(number, text.encode()))
    return b"".join(parts)


def _entry_message(name: str, value: Value) -> bytes:
    return _delimited(1, name.encode()) + _delimited(2, _value_message(value))


def _value_message(value: Value) -> bytes:
    if isinstance(value, Bytes):
        texts = [_delimited(1, each) for each in value.values]
        if value.content_type is not None:
            texts.append(_delimited(2, value.content_type.encode()))
        return _delimited(_FIELD_OF_BYTES, b"".join(texts))
    packed = (_packed_values(value.values), _packed(value.keys), _packed(value.shape))
    fields = [_delimited(number, content) for number, content in enumerate(packed, start=1) if content]
    return _delimited(_FIELD_OF_TYPECODE[value.values.typecode], b"".join(fields))


def _packed_values(values: "array[Any]") -> bytes:
    if values.typecode == "i":
        return _packed(values)
    if sys.byteorder == "big":
        values = values[:]
        _swap(values)
    return values.tobytes()


def _packed(numbers: Iterable[int]) -> bytes:
    return b"".join(map(_varint_bytes, numbers))


def _delimited(number: int, content: bytes) -> bytes:
    return _varint_bytes(number << 3 | _DELIMITED) + _varint_bytes(len(content)) + content


def _varint_bytes(number: int) -> bytes:
    number &= 2**64 - 1  # a negative one has ten bytes
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
