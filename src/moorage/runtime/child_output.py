"""What a child process that is not ours prints, as records of our own log.

Its lines have no place in our log as they are: they can hold what callers wrote, and there can be any number of them.
"""

import asyncio
import json
import logging
from collections.abc import Callable

TakeLine = Callable[[str], None]
_LONGEST_LINE = 8192
_CHUNK = 64 * 1024
_LEVELS = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
}
_ABANDONED = ("unexpected EOF", "context canceled", "connection reset by peer", "broken pipe")
"""How what the embedded S3 says of a request ends when its client went away in the middle."""

logger = logging.getLogger(__name__)


class LineSplitter:
    """Cuts a stream of bytes into lines. Of a line that is too long the rest is dropped, so memory is bounded."""

    def __init__(self, longest: int = _LONGEST_LINE) -> None:
        self._longest = longest
        self._begun = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete with these bytes, without their ends."""
        *complete, begun = data.split(b"\n")
        if complete:
            complete[0] = self._begun + complete[0]
            self._begun = b""
        self._begun = (self._begun + begun)[: self._longest]
        return [line[: self._longest].rstrip(b"\r") for line in complete]

    def rest(self) -> bytes:
        """The last line, if the stream ended without ending it."""
        begun, self._begun = self._begun, b""
        return begun


async def follow(output: asyncio.StreamReader, take: TakeLine) -> None:
    """Give every line of an output to `take`, empty ones aside, until it ends."""
    splitter = LineSplitter()
    while data := await output.read(_CHUNK):
        for line in splitter.feed(data):
            if line:
                take(line.decode("utf-8", "replace"))
    if rest := splitter.rest():
        take(rest.decode("utf-8", "replace"))


def log_s3_line(line: str) -> None:
    """Log a line of the embedded S3, which writes JSON with the members `level` and `msg`."""
    level, text = parse_s3_line(line)
    logger.log(level, "S3: %s", text)


def parse_s3_line(line: str) -> tuple[int, str]:
    """The level and the text of a line. What is not in the expected form is a warning as it stands.

    That a client went away within an upload is for debugging only: any client may, at any time.
    """
    try:
        document = json.loads(line)
        text = str(document["msg"]).strip()
        level = _LEVELS[document["level"]]
    except (ValueError, LookupError, TypeError, RecursionError):
        return logging.WARNING, line
    if text.endswith(_ABANDONED):
        level = logging.DEBUG
    return level, text
