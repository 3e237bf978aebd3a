"""The `aws-chunked` content encoding that SDKs upload to S3 with: chunks with extensions, then trailers.

    <size in hex>[;chunk-signature=…]CRLF <data> CRLF … 0[;…]CRLF [trailer: value CRLF …] CRLF

Source: "Signature calculations … chunked upload" in the S3 API reference; what botocore's httpchecksum sends.
"""

import re

_SIZE = re.compile(rb"([0-9a-fA-F]{1,16})(?:;[^\r\n]*)?")
_LONGEST_LINE = 8 * 1024


class MalformedChunks(Exception):
    """The bytes are not `aws-chunked`."""


class Decoder:
    """Fed in pieces of any size; gives back what they hold. `trailers` are there once `complete` is."""

    def __init__(self) -> None:
        self._pending = b""
        self._left = 0  # of the chunk being read
        self._after_data = False  # its CRLF comes next
        self._in_trailers = False
        self.complete = False
        self.trailers: dict[bytes, bytes] = {}

    def feed(self, data: bytes) -> bytes:
        """Raises `MalformedChunks`."""
        out = []
        self._pending += data
        while self._pending and not self.complete:
            if self._left:
                piece = self._pending[: self._left]
                self._pending = self._pending[len(piece) :]
                self._left -= len(piece)
                self._after_data = not self._left
                out.append(piece)
                continue
            line, end, rest = self._pending.partition(b"\r\n")
            if not end:
                if len(line) > _LONGEST_LINE:
                    raise MalformedChunks("a chunk's header is too long")
                break
            self._pending = rest
            self._take_line(line)
        return b"".join(out)

    def _take_line(self, line: bytes) -> None:
        if self._after_data:
            if line:
                raise MalformedChunks("a chunk is longer than it says")
            self._after_data = False
        elif self._in_trailers:
            if not line:
                self.complete = True
                return
            name, colon, value = line.partition(b":")
            if not colon:
                raise MalformedChunks("a trailer has no name")
            self.trailers[name.strip().lower()] = value.strip()
        else:
            size = _SIZE.fullmatch(line)
            if size is None:
                raise MalformedChunks("a chunk does not begin with its size")
            self._left = int(size[1], 16)
            self._in_trailers = not self._left
