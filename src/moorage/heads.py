"""Heads that are like one before, but for a few values: what is sent over one connection, again and again.

A client's requests differ in their date, their signature and their length; so do a container's replies. `KnownHead`
is made of a head that llhttp has parsed, and reads another one like it: it compares what must be the same, and takes
the values of `_VARYING` from between. What it reads is what llhttp would have read, or it reads nothing:

* every byte but those of the values is one that llhttp has seen in its place;
* a value is visible ASCII and spaces, so it cannot end its line;
* none of them decides where the message ends but `Content-Length`, and there the message must end.
"""

from typing import Final

_LENGTH: Final = b"content-length"
_VARYING: Final = frozenset(
    (
        b"amz-sdk-invocation-id",
        b"amz-sdk-request",
        b"authorization",
        _LENGTH,
        b"date",
        b"x-amz-content-sha256",
        b"x-amz-date",
    )
)
"""The headers whose values may be others."""

_LEFT_TO_LLHTTP: Final = frozenset((b"expect", b"transfer-encoding", b"upgrade"))
_LONGEST: Final = 4096
"""Longer heads are not kept: there may be as many as there are connections."""

MOST_LEARNED: Final = 16
"""Of so many heads, less those that were known since, one was unlike the next: no more are learned then."""

_PLAIN: Final = bytes(range(0x20, 0x7F))


_DECIMALS: Final = [b"%d" % number for number in range(4096)]


def decimal(number: int) -> bytes:
    """As it stands in `Content-Length`."""
    return _DECIMALS[number] if number < 4096 else b"%d" % number


class _Value:
    """One that varies. `before` is what comes between the one before it, or the beginning, and this."""

    __slots__ = ("before", "name", "prefix", "size")

    def __init__(self, name: bytes, before: bytes, prefix: bytes, size: int) -> None:
        self.name = name
        self.before = before
        self.prefix = prefix
        """The part of the header's value that does not vary; it is the end of `before`, too."""
        self.size = size
        """The last one's, and most likely the next one's."""


class KnownHead:
    """What the heads of one kind have in common. `learn` makes them."""

    __slots__ = ("_end", "_headers", "_values", "body_at")

    def __init__(self, headers: dict[bytes, bytes], values: list[_Value], end: bytes) -> None:
        self._headers = headers
        self._values = values
        self._end = end
        self.body_at = 0
        """Where the body of the message that was read last begins."""

    def read(self, message: bytes) -> dict[bytes, bytes] | None:
        """The headers of a message that is here to its last byte, or None: then llhttp has to read it."""
        headers = self._headers.copy()
        at = 0
        for value in self._values:
            start = at + len(value.before)
            if message[at:start] != value.before:
                return None
            at = start + value.size
            if message[at : at + 1] != b"\r":
                at = message.find(b"\r", start)
                if at < 0:
                    return None
                value.size = at - start
            varying = message[start:at]
            if not varying.isalnum() and not _is_plain(varying):
                return None
            headers[value.name] = value.prefix + varying if value.prefix else varying
        start = at + len(self._end)
        if message[at:start] != self._end:
            return None
        self.body_at = start
        length = headers[_LENGTH]
        return headers if length == decimal(len(message) - start) else None


def learn(message: bytes, headers: dict[bytes, bytes]) -> KnownHead | None:
    """From a message that is here to its last byte, and its headers as llhttp gave them: lower-case names, values
    without the spaces around them. None if it is not of the plain kind that can be known."""
    head, _, body = message.partition(b"\r\n\r\n")
    same, *lines = head.split(b"\r\n")
    if len(head) > _LONGEST or headers.get(_LENGTH) != decimal(len(body)):
        return None
    if len(lines) != len(headers) or not _LEFT_TO_LLHTTP.isdisjoint(headers):
        return None
    values = []
    for line in lines:
        name, _, value = line.partition(b": ")
        name = name.lower()
        if value != headers.get(name) or not _is_plain(value):
            return None
        same += b"\r\n" + line
        if name in _VARYING:
            prefix = b""
            if name == b"authorization":
                before, found, _ = value.rpartition(b"Signature=")
                prefix = before + found
            size = len(value) - len(prefix)
            values.append(_Value(name, same[: len(same) - size], prefix, size))
            same = b""
    return KnownHead(dict(headers), values, same + b"\r\n\r\n")


def _is_plain(value: bytes) -> bool:
    """Whether it is one that llhttp gives as it is, as far as it goes."""
    return (
        bool(value)
        and not value.startswith(b" ")
        and not value.endswith(b" ")
        and not value.translate(None, _PLAIN)
    )
