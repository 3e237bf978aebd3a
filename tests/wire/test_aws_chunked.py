"""aws-chunked, beside what botocore sends."""

import io
from typing import Any

import pytest
from botocore.httpchecksum import AwsChunkedWrapper, Crc32Checksum
from hypothesis import given
from hypothesis import strategies as st

from moorage.wire.aws_chunked import Decoder, MalformedChunks


@given(st.binary(max_size=5000), st.integers(1, 2000), st.integers(1, 700))
def test_what_botocore_sends_comes_back(data: bytes, chunk_size: int, piece: int) -> None:
    wrapper: Any = AwsChunkedWrapper(
        io.BytesIO(data),
        checksum_cls=Crc32Checksum,
        checksum_name="x-amz-checksum-crc32",
        chunk_size=chunk_size,
    )
    sent = b"".join(iter(lambda: wrapper.read(), b""))
    decoder = Decoder()
    parts = [decoder.feed(sent[start : start + piece]) for start in range(0, len(sent), piece)]
    assert b"".join(parts) == data
    assert decoder.complete
    assert list(decoder.trailers) == [b"x-amz-checksum-crc32"]


def test_signed_chunks_are_read_too() -> None:
    decoder = Decoder()
    assert decoder.feed(b"3;chunk-signature=" + b"a" * 64 + b"\r\nabc\r\n0;chunk-signature=") == b"abc"
    assert decoder.feed(b"b" * 64 + b"\r\n\r\n") == b""
    assert decoder.complete
    assert decoder.trailers == {}


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n",
        b"3\r\nabcd\r\n",
        b"0\r\nno colon\r\n",
        b"1" * 9000,
        b"-1\r\n",
        b"\r\n",
        b"0\r\n\r\nGET / HTTP/1.1\r\n",
        b"0\r\n" + b"a: b\r\n" * 3000,
    ],
)
def test_what_is_not_chunked_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedChunks):
        Decoder().feed(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    decoder = Decoder()
    try:
        decoder.feed(data)
    except MalformedChunks:
        return
    assert len(decoder.trailers) <= len(data)
