"""Heavy work on files, in a process of its own: the program that `file_workers` starts.

    python -I -S -c '…' PARENT NICENESS     one JSON object a line on standard input: {"job": "unpack", …}
                                            one a line on standard output: {} or {"artifact_error" | "os_error": …}

A process, not a thread: unpacking holds the interpreter's lock for a good part of its time. It has a lower priority
than the server, a limit of memory, and dies with its parent, whenever that is killed. Nothing here is imported that
takes long: the program is ready in 40 ms.
"""

import ctypes
import json
import os
import resource
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from moorage.controller import artifacts

_PR_SET_PDEATHSIG: Final = 1
_MEMORY_BYTES: Final = 1024 * 1024 * 1024
"""Of addresses. Unpacking needs some 30 MB; the rest is for what an archive makes `tarfile` hold."""
_LONGEST_REASON: Final = 2000
_MULTIPART_UPLOADS: Final = "*/.sgwtmp/multipart/*/*"
"""Where the embedded S3 keeps the parts of an upload: bucket, hash of the key, upload."""


def unpack(*, archive: str, destination: str, max_bytes: int, keep_free_bytes: int) -> None:
    artifacts.unpack(Path(archive), Path(destination), max_bytes=max_bytes, keep_free_bytes=keep_free_bytes)


def make_readable(*, directory: str) -> None:
    """A container may run as another user. That nobody else gets here is up to the directory's own mode."""
    for parent, _, names in os.walk(directory):
        Path(parent).chmod(0o755)
        for name in names:
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o755 | 0o444)


def remove(*, path: str) -> None:
    """Remove a file or a whole directory, links without what they lead to. It may be gone already.

    A container that runs as the server's own user may have taken itself the permission to write in a directory; the
    directory is then ours, and the permission is given back.
    """
    target = Path(path)
    if target.is_symlink() or not target.is_dir():
        target.unlink(missing_ok=True)
        return
    if os.geteuid() != 0:
        _open_directories(target)
    shutil.rmtree(target)


def remove_unfinished_uploads(*, root: str, metadata: str, older_than: float) -> None:
    """Remove multipart uploads to the embedded S3 that nobody has completed or aborted, nor sent a part of since
    `older_than`, in seconds since 1970. `metadata` is its side directory, which may be missing."""
    for upload in Path(root).glob(_MULTIPART_UPLOADS):
        with suppress(FileNotFoundError):  # it is complete now, or aborted
            if max(path.lstat().st_mtime for path in (upload, *upload.iterdir())) < older_than:
                shutil.rmtree(upload)
                shutil.rmtree(Path(metadata, upload.relative_to(root)), ignore_errors=True)


def _open_directories(root: Path) -> None:
    root.chmod(0o700)
    for directory, names, _, descriptor in os.fwalk(root):
        for name in names:
            if stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                Path(directory, name).chmod(0o700)


_JOBS: Final[Mapping[str, Callable[..., None]]] = {
    "unpack": unpack,
    "make_readable": make_readable,
    "remove": remove,
    "remove_unfinished_uploads": remove_unfinished_uploads,
}


def answer(line: bytes) -> dict[str, Any]:
    """Do what a line asks for, and say how it ended."""
    arguments = json.loads(line)
    try:
        _JOBS[arguments.pop("job")](**arguments)
    except artifacts.ArtifactError as error:
        return {"artifact_error": error.reason[:_LONGEST_REASON]}
    except OSError as error:
        return {"os_error": [error.errno, error.strerror or str(error), error.filename]}
    return {}


def main() -> None:
    parent, niceness = int(sys.argv[1]), int(sys.argv[2])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before prctl, and cannot send the signal any more
        os._exit(1)
    os.nice(niceness)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    for line in sys.stdin.buffer:
        sys.stdout.write(json.dumps(answer(line)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
