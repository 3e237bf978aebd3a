"""The `aws-chunked` content encoding that SDKs upload to S3 with: chunks with extensions, then trailers.

    <size in hex>[;chunk-signature=…]CRLF <data> CRLF … 0[;…]CRLF [trailer: value CRLF …] CRLF

Source: "Signature calculations … chunked upload" in the S3 API reference; what botocore's httpchecksum sends.
"""

import re

_SIZE = re.compile(rb"([0-9a-fA-F]{1,16})(?:;([^\r\n]*))?")
_LONGEST_LINE = 8 * 1024
"""Bytes of the line before a chunk, and of all trailers."""


class MalformedChunks(Exception):
    """The bytes are not `aws-chunked`."""


class Decoder:
    """Fed in pieces of any size; gives back what they hold. `trailers` are there once `complete` is.

    A subclass may look at each chunk, before what completes it is given back, and at the trailers; and give back
    something for them, too. `decoded` counts the bytes of all chunks.
    """

    def __init__(self) -> None:
        self._pending = b""
        self._left = 0  # of the chunk being read
        self._after_data = False  # its CRLF comes next
        self._in_trailers = False
        self._trailer_bytes = 0
        self.complete = False
        self.decoded = 0
        self.trailers: dict[bytes, bytes] = {}

    def feed(self, data: bytes) -> bytes:
        """Raises `MalformedChunks`."""
        out = []
        data = self._pending + data
        at = 0
        while at < len(data):
            if self.complete:
                raise MalformedChunks("more follows its end")
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                self.decoded += len(piece)
                self.chunk_data(piece)
                out.append(piece)
                if not self._left:
                    self._after_data = True
                    out.append(self.chunk_ends())
                continue
            end = data.find(b"\r\n", at, at + _LONGEST_LINE + 2)
            if end < 0:
                if len(data) - at > _LONGEST_LINE:
                    raise MalformedChunks("a chunk's header is too long")
                break
            line = data[at:end]
            at = end + 2
            out.append(self._take_line(line))
        self._pending = data[at:]
        return b"".join(out)

    def _take_line(self, line: bytes) -> bytes:
        if self._after_data:
            if line:
                raise MalformedChunks("a chunk is longer than it says")
            self._after_data = False
            return b""
        if self._in_trailers:
            if not line:
                self.complete = True
                return self.trailers_end()
            name, colon, value = line.partition(b":")
            if not colon:
                raise MalformedChunks("a trailer has no name")
            self._trailer_bytes += len(line)
            if self._trailer_bytes > _LONGEST_LINE:
                raise MalformedChunks("its trailers are too long")
            self.trailers[name.strip().lower()] = value.strip()
            return b""
        size = _SIZE.fullmatch(line)
        if size is None:
            raise MalformedChunks("a chunk does not begin with its size")
        self._left = int(size[1], 16)
        begun = self.chunk_begins(self._left, size[2] or b"")
        if self._left:
            return begun
        self._in_trailers = True
        return begun + self.chunk_ends()

    def chunk_begins(self, size: int, extension: bytes) -> bytes:
        """The line of a chunk has come, with what follows its size. The last one has the size 0."""
        return b""

    def chunk_data(self, piece: bytes) -> None:
        """Bytes of the chunk."""

    def chunk_ends(self) -> bytes:
        """All of them have come."""
        return b""

    def trailers_end(self) -> bytes:
        """All trailers have come."""
        return b""
