"""The logs of instances on the disk: where they are, and how they are read.

    <data>/logs/<account>/<endpoint>/<incarnation>/<variant>/<instance id>.log      the newest lines
                                                             <instance id>.log.1    those before them, and so on

An incarnation is one endpoint of that name: the next one of the same name has a directory of its own. When a log
grows, its file is renamed to the next number, and a line may begin in one file and end in the next.

A log is read in pieces of a few MiB at most, never as a whole, and nothing is read through a link. Reading blocks:
`in_thread` runs it in threads that are for nothing else.
"""

import asyncio
import os
import re
import stat
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Final, NamedTuple, ParamSpec, TypeVar

from moorage.resources import Endpoint
from moorage.storage.base import ResourceStore

MAX_PIECE_BYTES: Final = 4 * 1024 * 1024
"""The most that is read of a log at once; also the longest line that is not cut."""

_INCARNATION: Final = re.compile(r"\d{8}T\d{6}\.\d{6}Z")
_ENDPOINT_NAME: Final = re.compile(r"[a-zA-Z0-9](?:-*[a-zA-Z0-9]){0,62}")
_FILE: Final = re.compile(r"(?P<instance_id>[^.]+)\.log(?:\.(?P<number>[1-9]\d{0,3}))?")
_FILE_SPAN: Final = 2**44
"""More bytes than a file of a log has."""
_READERS: Final = ThreadPoolExecutor(4, thread_name_prefix="read logs")

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return await asyncio.get_running_loop().run_in_executor(_READERS, lambda: function(*args, **kwargs))


# --- where they are ------------------------------------------------------------------------------------


def incarnation(endpoint: Endpoint) -> str:
    """A name that no other endpoint of the same name has, and that sorts by time."""
    return endpoint.creation_time.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def is_incarnation(name: str) -> bool:
    """Whether a directory with this name is that of an incarnation. No variant can have such a name."""
    return _INCARNATION.fullmatch(name) is not None


def instance_of(file_name: str) -> str | None:
    """The id of the instance whose log a file is part of; None if it is no part of a log."""
    matched = _FILE.fullmatch(file_name)
    return None if matched is None else matched["instance_id"]


class LogDirectories:
    """Finds the directory of an endpoint's logs below `root`."""

    def __init__(self, root: Path, store: ResourceStore) -> None:
        self._root = root
        self._store = store

    async def find(self, account_id: str, endpoint_name: str) -> Path | None:
        """That of the endpoint, which may not exist yet, or else of the last one that had the name; None if there is
        no such endpoint and no log of it."""
        if _ENDPOINT_NAME.fullmatch(endpoint_name) is None:
            return None
        endpoint = await self._store.get(Endpoint, account_id, endpoint_name)
        if endpoint is not None:
            return directory_of(self._root, endpoint)
        kept = self._root / account_id / endpoint_name
        with suppress(OSError):
            return max((path for path in kept.iterdir() if is_incarnation(path.name)), default=None)
        return None


def directory_of(root: Path, endpoint: Endpoint) -> Path:
    """Where the instances of an endpoint keep their logs: `<variant>/<instance id>.log` below it."""
    return root / endpoint.account_id / endpoint.name / incarnation(endpoint)


# --- reading -------------------------------------------------------------------------------------------


class LogName(NamedTuple):
    variant: str
    instance_id: str

    def __str__(self) -> str:
        return f"{self.variant}/{self.instance_id}"


class Place(NamedTuple):
    """Where a line begins: a file by its inode, and the offset in it. Both survive a rotation."""

    file: int
    offset: int


class LogLine(NamedTuple):
    """`number` grows from line to line, whichever files they are in."""

    place: Place
    number: int
    text: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPiece:
    """Complete lines that follow one another, and the place after the last of them."""

    lines: Sequence[LogLine]
    end: Place
    files: Sequence[int]
    """The log's files that there are, the oldest first."""
    modified: float

    def number(self, place: Place) -> int:
        """To compare a place with the numbers of lines. One in a file that is gone comes before all."""
        return _number(self.files, place)


def logs_in(directory: Path) -> dict[LogName, tuple[int, int]]:
    """The logs below an endpoint's directory, those that were written to longest ago first. What comes with each is
    another whenever the log has changed."""
    found: list[tuple[int, LogName, tuple[int, int]]] = []
    with _opened(str(directory)) as root:
        for variant in _names(root):
            with _opened(variant, root) as descriptor:
                for name in _names(descriptor):
                    matched = _FILE.fullmatch(name)
                    if matched is None or matched["number"]:
                        continue
                    with suppress(OSError):  # it has just been rotated
                        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                        if stat.S_ISREG(status.st_mode):
                            log = LogName(variant, matched["instance_id"])
                            found.append((status.st_mtime_ns, log, (status.st_ino, status.st_size)))
    return {log: stamp for _, log, stamp in sorted(found)}


def read_log(
    directory: Path, log: LogName, *, after: Place | None = None, max_bytes: int = MAX_PIECE_BYTES
) -> LogPiece:
    """The lines after a place, or the last ones of the log; `max_bytes` are read.

    A place in a file that is gone is before all that there is. One behind the end of its file means that the file was
    cut: it is read from its start.
    """
    with ExitStack() as stack:
        files = _open_files(directory, log, stack)
        inodes = [status.st_ino for _, status in files]
        sizes = [status.st_size for _, status in files]
        if after is None:
            index, offset = _from_the_end(sizes, max_bytes)
        elif after.file in inodes:
            index = inodes.index(after.file)
            offset = after.offset if after.offset <= sizes[index] else 0
        else:
            index = offset = 0
        data, starts, places = bytearray(), [], []
        for (descriptor, _), inode, size in zip(files[index:], inodes[index:], sizes[index:], strict=True):
            if len(data) >= max_bytes:
                break
            starts.append(len(data))
            places.append(Place(inode, offset))
            data += os.pread(descriptor, min(size - offset, max_bytes - len(data)), offset)
            offset = 0
        modified = max((status.st_mtime for _, status in files), default=0.0)

    def place_of(position: int) -> Place:
        part = bisect_right(starts, position) - 1
        return Place(places[part].file, places[part].offset + position - starts[part])

    is_cut = after is None and sum(sizes) > max_bytes
    position = data.find(b"\n") + 1 if is_cut else 0
    lines: list[LogLine] = []
    while (end := _end_of_line(data, position, max_bytes)) is not None:
        place = place_of(position)
        lines.append(LogLine(place, _number(inodes, place), bytes(data[position:end]).rstrip(b"\n")))
        position = end
    if not files:
        return LogPiece(lines=(), end=after or Place(0, 0), files=(), modified=0.0)
    return LogPiece(lines=lines, end=place_of(position), files=inodes, modified=modified)


def _end_of_line(data: bytearray, position: int, max_bytes: int) -> int | None:
    """Where the line that begins here ends, its newline included; None if that is not here. One that fills all that
    was read is cut."""
    newline = data.find(b"\n", position)
    if newline >= 0:
        return newline + 1
    return len(data) if position == 0 and len(data) >= max_bytes else None


def _from_the_end(sizes: Sequence[int], max_bytes: int) -> tuple[int, int]:
    """The file and the offset at which the last `max_bytes` of all begin."""
    skipped = max(0, sum(sizes) - max_bytes)
    for index, size in enumerate(sizes):
        if skipped < size:
            return index, skipped
        skipped -= size
    return max(0, len(sizes) - 1), sizes[-1] if sizes else 0


def _number(files: Sequence[int], place: Place) -> int:
    index = files.index(place.file) if place.file in files else -1
    return index * _FILE_SPAN + place.offset


def _open_files(directory: Path, log: LogName, stack: ExitStack) -> list[tuple[int, os.stat_result]]:
    """The files of a log, the oldest first. The newest is opened first: one that is renamed meanwhile is met again
    under its next number, and none is missed between two that are read."""
    root = stack.enter_context(_opened(str(directory)))
    variant = stack.enter_context(_opened(log.variant, root))
    numbers = {
        int(matched["number"] or 0): name
        for name in _names(variant)
        if (matched := _FILE.fullmatch(name)) and matched["instance_id"] == log.instance_id
    }
    files: dict[int, tuple[int, os.stat_result]] = {}
    for _, name in sorted(numbers.items()):
        with suppress(OSError):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=variant)
            stack.callback(os.close, descriptor)
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode):
                files.setdefault(status.st_ino, (descriptor, status))
    return list(reversed(files.values()))


@contextmanager
def _opened(name: str, parent: int | None = None) -> Iterator[int]:
    """A directory that is no link; -1 when it is not there."""
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = -1 if parent == -1 else os.open(name, flags, dir_fd=parent)
    except OSError:
        descriptor = -1
    try:
        yield descriptor
    finally:
        if descriptor != -1:
            os.close(descriptor)


def _names(directory: int) -> list[str]:
    return [] if directory == -1 else sorted(os.listdir(directory))
