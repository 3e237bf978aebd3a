"""Model artifacts on their way onto disk: archives unpacked, object names made into file names.

An archive comes from whoever may write to a bucket, so it is unpacked as an adversary's:

* Nothing is written through a link. Directories and files come first; links are created after all of them,
  none at or below a place that already exists as something else, and then each must lead to something that
  exists inside. AWS documents archives as free of symbolic links; links that stay inside are accepted here,
  because real archives have them (a Hugging Face cache is full of them). Anything else is refused.
* Sizes are counted as they are written, never taken from a header, and a header cannot make us read much
  either: what `tarfile` reads at once, and for one entry, is limited too.
* The holes of a sparse file count in full against the limit of bytes, as a reader of the file sees them. On the disk
  they stay holes: an archive of 374 bytes may describe 4 GiB, and takes no blocks for them.
* The disk is looked at every few MiB: unpacking stops before the space that is to be kept free is used. Because all
  unpackings look at the same disk, their sum is bounded too.
* It is everything or nothing: the files appear in the destination by one rename.

All of this blocks and keeps a processor busy: it runs in a process of its own (`file_jobs`).
"""

import gzip
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, Final, cast

MAX_FILES: Final = 100_000
_LONGEST_NAME_BYTES: Final = 255
_PIECE_BYTES: Final = 1024 * 1024
"""The most that is read at once; also the longest header."""
_OVERHEAD_BYTES: Final = 4096
"""What an archive may spend, on average, on the headers and the padding of one entry."""
MAX_OVERHEAD_BYTES: Final = MAX_FILES * _OVERHEAD_BYTES
"""What a whole archive may have besides its files."""
_GZIP_MAGIC: Final = b"\x1f\x8b"
_OTHER_FORMATS: Final = {
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"PK\x03\x04": "a zip file",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
}
"""What files that are no archives of SageMaker's begin with."""
_MAX_HEADER_BYTES: Final = 4 * 1024 * 1024
"""All headers of one entry, with the map of a sparse file (some 20 bytes a hole): `tarfile` keeps them in memory,
where they grow twentyfold."""
_MAX_GLOBAL_HEADERS: Final = 1000
"""Of the whole archive: `tarfile` copies them for each entry."""
_BLOCK_BYTES: Final = 4096
"""What the smallest file takes on the disk."""
_BYTES_BETWEEN_LOOKS: Final = 8 * 1024 * 1024
"""What may be written before the free space is looked at again."""


class ArtifactError(Exception):
    """A model artifact cannot be used; `reason` says why, as the end of a sentence."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def extraction_failure(hostname: str, url: str, error: ArtifactError) -> str:
    """The text of an endpoint's FailureReason: AWS's sentence, then what exactly was wrong."""
    return (
        f'Failed to extract model data archive for container "{hostname}" from URL "{url}". Please ensure that '
        f"the object located at the URL is a valid tar.gz archive. Reason: {error.reason}."
    )


def unpack(
    archive: Path | BinaryIO,
    destination: Path,
    *,
    max_bytes: int,
    max_files: int = MAX_FILES,
    keep_free_bytes: int = 0,
) -> None:
    """Unpack a tar archive, gzip-compressed or not, into `destination`, which must be empty or not exist.

    A file object is read forwards only and not closed. Set-id bits, owners and write permission of others are
    dropped. `max_bytes` is the sum of the files' lengths, holes included; `keep_free_bytes` stay free on the disk. On
    any error `destination` is as it was.

    Raises:
        ArtifactError: not a valid archive, an entry that is not allowed, too much, or no room on the disk.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    unpacking = _Unpacking(
        staging, max_bytes=max_bytes, max_files=max_files, room=_Room(staging, keep_free_bytes)
    )
    try:
        if isinstance(archive, Path):
            with archive.open("rb") as file:
                _unpack_into(file, unpacking, max_bytes, max_files)
        else:
            _unpack_into(archive, unpacking, max_bytes, max_files)
        staging.chmod(0o755)
        staging.rename(destination)
    except OSError as error:
        raise ArtifactError(f"it cannot be unpacked to {destination}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def relative_name(key: str, prefix: str | None) -> str:
    """The path below the model directory of an uncompressed object: `key` without `prefix`.

    With `prefix` None (`S3DataType` `S3Object`) it is the last part of the key.
    The rules are those of `S3ModelDataSource` in the SageMaker API reference.

    Raises:
        ArtifactError: the name, or a part of it, is not allowed.
    """
    if prefix is None:
        name = key.rpartition("/")[2]
    elif not prefix.endswith("/"):
        raise ArtifactError(f"the S3 prefix {prefix!r} does not end with a slash")
    elif not key.startswith(prefix):
        raise ArtifactError(f"the object {key!r} is not below the prefix {prefix!r}")
    else:
        name = key[len(prefix) :]
    for part in name.split("/"):
        fault = _fault_of_name(part)
        if fault:
            raise ArtifactError(f"the object {key!r} would make a file or directory name that {fault}")
    return name


def check_no_clash(names: Iterable[str]) -> None:
    """Raises `ArtifactError` if one name is both a file and a directory, or occurs twice."""
    files = set()
    for name in names:
        if name in files:
            raise ArtifactError(f"the file {name!r} occurs twice")
        files.add(name)
    for name in files:
        for directory in PurePosixPath(name).parents:
            if str(directory) in files:
                raise ArtifactError(f"{str(directory)!r} is both a file and a directory")


def _fault_of_name(part: str) -> str | None:
    if not part.strip():
        return "is empty"
    if "\0" in part:
        return "holds a null byte"
    if len(os.fsencode(part)) > _LONGEST_NAME_BYTES:
        return f"is longer than {_LONGEST_NAME_BYTES} bytes"
    if part in (".", ".."):
        return f"is {part!r}"
    return None


def _unpack_into(file: BinaryIO, unpacking: "_Unpacking", max_bytes: int, max_files: int) -> None:
    start = file.read(max(map(len, _OTHER_FORMATS)))
    for magic, kind in _OTHER_FORMATS.items():
        if start.startswith(magic):
            raise ArtifactError(f"it is {kind}; pack the model with: tar -czf model.tar.gz -C DIRECTORY .")
    whole = io.BufferedReader(_Joined(start, file), _PIECE_BYTES)
    stream: io.BufferedIOBase = gzip.GzipFile(fileobj=whole) if start.startswith(_GZIP_MAGIC) else whole
    source = _Forward(stream, max_bytes=max_bytes, overhead=max_files * _OVERHEAD_BYTES)
    try:
        with _Tar.open(fileobj=cast(IO[bytes], source), mode="r:") as tar:
            while member := tar.next():
                if len(tar.pax_headers) > _MAX_GLOBAL_HEADERS:
                    raise ArtifactError(f"it has more than {_MAX_GLOBAL_HEADERS} global headers")
                tar.members.clear()  # which are kept for whoever asks for them again
                unpacking.take(source, member)
                source.begin_entry()
        source.check_end()
        unpacking.make_links()
        while source.take(_PIECE_BYTES):
            pass  # whatever follows: only at the very end gzip compares its checksum
    except ArtifactError:
        raise
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise ArtifactError(f"it is not a valid archive: {error}") from error
        raise
    except Exception as error:  # `tarfile` and `zlib` answer damage with exceptions of many kinds
        detail = str(error) or type(error).__name__
        raise ArtifactError(f"it is not a valid archive: {detail}") from error


def _too_large(max_bytes: int) -> ArtifactError:
    return ArtifactError(f"it is larger than {max_bytes} bytes when unpacked")


class _Room:
    """What is left of the disk of a directory, while others write to it as well."""

    def __init__(self, directory: Path, keep_free_bytes: int) -> None:
        self._directory = directory
        self._keep_free_bytes = keep_free_bytes
        self._unseen = _BYTES_BETWEEN_LOOKS  # so that the first use looks

    def use(self, size: int) -> None:
        """Blocks of this size are about to be written. Raises `ArtifactError` if the disk has no room for them."""
        self._unseen += size
        if self._unseen >= _BYTES_BETWEEN_LOOKS:
            self._unseen = 0
            disk = os.statvfs(self._directory)
            if disk.f_bavail * disk.f_frsize - size < self._keep_free_bytes:
                raise ArtifactError(
                    f"the disk of {self._directory.parent} would have less than {self._keep_free_bytes} bytes free "
                    "(setting disk_reserve_bytes): delete endpoints or other files, or lower the setting"
                )


class _Tar(tarfile.TarFile):
    members: list[tarfile.TarInfo]


class _Unpacking:
    """One archive being written below `root`."""

    def __init__(self, root: Path, *, max_bytes: int, max_files: int, room: _Room) -> None:
        self._root = root
        self._room = room
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._bytes = 0
        self._entries = 0
        self._directories = {root}
        self._links: list[tuple[Path, str, str]] = []

    def take(self, source: "_Forward", member: tarfile.TarInfo) -> None:
        path = self._path_of(member.name)
        if member.isdir():
            self._make_directory(path)
        elif path == self._root:
            raise ArtifactError(f"its entry {member.name!r} has no file name")
        elif member.isreg():
            self._write(source, member, path)
        elif member.issym():
            self._links.append((path, member.name, member.linkname))
            self._count_entry()
        elif member.islnk():
            self._make_hard_link(path, member)
        else:
            raise ArtifactError(f"its entry {member.name!r} is neither a file nor a directory nor a link")

    def make_links(self) -> None:
        """Create the symbolic links, now that nothing is written any more, and see where they lead."""
        for path, name, target in self._links:
            inside = os.path.normpath(path.parent.relative_to(self._root) / target)
            if target.startswith("/") or inside == ".." or inside.startswith("../"):
                raise ArtifactError(f"its link {name!r} points outside of the archive, to {target!r}")
            self._make_directory(path.parent)
            if os.path.lexists(path):
                raise ArtifactError(f"its entry {name!r} occurs twice")
            path.symlink_to(target)
        root = self._root.resolve()
        for path, name, target in self._links:
            try:
                real = path.resolve(strict=True)
            except (OSError, RuntimeError):
                raise ArtifactError(f"its link {name!r} leads nowhere, to {target!r}") from None
            if not real.is_relative_to(root):
                raise ArtifactError(f"its link {name!r} points outside of the archive, to {target!r}")

    def _path_of(self, name: str) -> Path:
        if name.startswith("/"):
            raise ArtifactError(f"its entry {name!r} is an absolute path")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        for part in parts:
            fault = _fault_of_name(part)
            if fault:
                raise ArtifactError(f"its entry {name!r} has a part that {fault}")
        return self._root.joinpath(*parts)

    def _count_entry(self) -> None:
        self._entries += 1
        if self._entries > self._max_files:
            raise ArtifactError(f"it holds more than {self._max_files} files")
        self._room.use(_BLOCK_BYTES)

    def _count_bytes(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._max_bytes:
            raise _too_large(self._max_bytes)

    def _make_directory(self, path: Path) -> None:
        """Make a directory and those above it, none of which may be a file or a link."""
        if path in self._directories:
            return
        self._make_directory(path.parent)
        if os.path.lexists(path):
            name = str(path.relative_to(self._root))
            raise ArtifactError(f"its entry {name!r} is both a directory and something else")
        self._count_entry()
        path.mkdir(mode=0o755)
        self._directories.add(path)

    def _write(self, source: "_Forward", member: tarfile.TarInfo, path: Path) -> None:
        self._make_place(path, member.name)
        source.seek(member.offset_data)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            written = 0
            # In typeshed's eyes `sparse` is a number; it is the offset and the length of each part that is no hole.
            parts = cast(list[tuple[int, int]] | None, member.sparse)
            for offset, length in [(0, member.size)] if parts is None else parts:
                if not length:
                    continue  # unused places of a map, wherever they point
                if not (written <= offset and 0 <= length <= member.size - offset):
                    raise tarfile.ReadError(f"the sparse file {member.name!r} has parts that cannot be")
                self._count_bytes(offset - written)
                file.seek(offset)
                self._copy(source, file, length)
                written = offset + length
            if parts is not None:
                self._count_bytes(member.size - written)
                file.truncate(member.size)
            os.fchmod(file.fileno(), member.mode & 0o755 | 0o600)

    def _copy(self, source: "_Forward", file: BinaryIO, length: int) -> None:
        while length:
            piece = source.take(min(length, _PIECE_BYTES))
            if not piece:
                raise tarfile.ReadError("it is cut off")
            self._count_bytes(len(piece))
            self._room.use(len(piece))
            file.write(piece)
            length -= len(piece)

    def _make_hard_link(self, path: Path, member: tarfile.TarInfo) -> None:
        target = self._path_of(member.linkname)
        if target.is_symlink() or not target.is_file():
            raise ArtifactError(f"its link {member.name!r} leads nowhere, to {member.linkname!r}")
        if path != target:
            self._make_place(path, member.name)
            path.hardlink_to(target)

    def _make_place(self, path: Path, name: str) -> None:
        """Room for a file. As in `tar`, a later entry of the same name replaces an earlier one."""
        self._make_directory(path.parent)
        self._count_entry()
        if path in self._directories:
            raise ArtifactError(f"its entry {name!r} is both a file and a directory")
        path.unlink(missing_ok=True)


class _Joined(io.RawIOBase):
    """A stream whose first bytes were already read."""

    def __init__(self, start: bytes, rest: BinaryIO) -> None:
        self._start = start
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        piece, self._start = self._start[: len(buffer)], self._start[len(buffer) :]
        piece = piece or self._rest.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


class _Forward:
    """The uncompressed archive as `tarfile` reads it: forwards only, never much at once, and not endlessly."""

    def __init__(self, stream: io.BufferedIOBase, *, max_bytes: int, overhead: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._overhead = overhead
        self._position = 0
        self._headers = 0
        self._last = b""

    def begin_entry(self) -> None:
        """What is read from now on belongs to the next entry."""
        self._headers = 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        """Skip ahead, as `tarfile` does over padding."""
        if position < self._position:
            raise tarfile.ReadError("its entries overlap")
        while self._position < position:
            if not self.take(min(position - self._position, _PIECE_BYTES)):
                raise tarfile.ReadError("it is cut off")

    def read(self, size: int) -> bytes:
        """What `tarfile` reads by itself: headers."""
        if not 0 <= size <= _PIECE_BYTES:
            raise tarfile.ReadError(f"it has a header of {size} bytes")
        self._headers += size
        if self._headers > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"one entry has headers of more than {_MAX_HEADER_BYTES} bytes")
        self._last = self.take(size)
        return self._last

    def take(self, size: int) -> bytes:
        """Up to `size` bytes, at most a piece; nothing at the end."""
        data = self._stream.read(size)
        self._position += len(data)
        if self._position > self._max_bytes + self._overhead:
            raise _too_large(self._max_bytes)
        return data

    def check_end(self) -> None:
        """`tarfile` takes a damaged header for the end of the archive; the real end is zeros, or nothing."""
        if self._last.strip(b"\0"):
            raise tarfile.ReadError(f"the header before byte {self._position} is damaged")
