"""A container's private view of the machine, made by bubblewrap (`bwrap`).

In it are the system's directories, Python and what the container's command line names, all read-only; the
instance's own directory as `/opt/ml`, of which it may write `output`; a private `/tmp`; and no processes but its own.
Not in it are the homes, `/var`, the data directory, and the sockets.

bwrap stays as the parent of what it started, ends with it, and reports how it ended as a shell does, 128 and the
signal's number (`returncode`).
"""

import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

BASE_DIR: Final = "/opt/ml"
CACHE_DIR: Final = "/var/cache/moorage"
TEMPORARY_DIR: Final = "/tmp"  # noqa: S108 - the private one of an instance

_SYSTEM: Final = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/sys"),
    *("/nix/store", "/gnu/store", "/run/current-system"),
)
_DEVICES: Final = ("nvidia*", "dri", "kfd", "accel", "neuron*")
_PROBE_SECONDS: Final = 20.0


def find_program() -> str:
    """bwrap's absolute path, empty if it is not installed."""
    found = shutil.which("bwrap")
    return "" if found is None else str(Path(found).absolute())


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What containers see beside the system, and never see: `readable` paths, and `hidden` directories.

    `program` is bwrap's absolute path, `shm_bytes` the size of `/dev/shm` (0: half of the machine's memory, which is
    also what a bwrap older than 0.7 gives), `resolver` the file that is shown as `/etc/resolv.conf`.
    """

    program: str = field(default_factory=find_program)
    hidden: tuple[Path, ...] = ()
    readable: tuple[Path, ...] = ()
    shm_bytes: int = 0
    resolver: Path | None = None


def has_size_option(program: str) -> bool:
    """Whether this bwrap can limit a tmpfs."""
    done = subprocess.run(
        [program, "--help"], capture_output=True, text=True, check=False, timeout=_PROBE_SECONDS
    )
    return "--size " in done.stdout + done.stderr


def command(
    view: View,
    argv: Sequence[str],
    *,
    base_dir: str,
    cache_dir: str = "",
    keep_user: bool,
    seccomp: int | None = None,
) -> list[str]:
    """The arguments up to the program that is to run in the view; `argv` is what it is going to run.

    `base_dir` has an `output` and a `tmp`, and is never writable for a container: else what is mounted from it at the
    next start could be a link to somewhere else. With `keep_user` false the program may still change its user.
    `seccomp` is the descriptor of a file with a system call filter.
    """
    capabilities = [] if keep_user else ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    return [
        *(view.program, "--die-with-parent", "--unshare-pid", "--unshare-ipc"),
        *("--cap-drop", "ALL", *capabilities),
        *(("--seccomp", str(seccomp)) if seccomp is not None else ()),
        *_system(),
        *_resolver(view.resolver),
        *("--perms", "1777"),
        *(("--size", str(view.shm_bytes)) if view.shm_bytes else ()),
        *("--tmpfs", "/dev/shm"),  # noqa: S108
        *_with_temporary(_files(view, argv), Path(base_dir, "tmp")),
        *("--ro-bind", base_dir, BASE_DIR, "--bind", f"{base_dir}/output", f"{BASE_DIR}/output"),
        *(("--bind", cache_dir, CACHE_DIR) if cache_dir else ()),
        *("--remount-ro", "/", "--chdir", "/", "--"),
    ]


def why_unusable(view: View, *, uid: int | None) -> str | None:
    """Run Python in a view, as that user, for there is no other way to know; None if that went well."""
    if not view.program:
        return "bubblewrap (bwrap) is not installed"
    change = "" if uid is None else f"os.setresuid({uid}, {uid}, {uid}); "
    script = f"import os, sys; {change}os.execv(sys.executable, [sys.executable, '-I', '-S', '-c', ''])"
    python = (sys.executable, "-I", "-S", "-c", script)
    with _probe_directory() as base_dir:
        whole = [*command(view, python, base_dir=base_dir, keep_user=uid is None), *python]
        try:
            done = subprocess.run(
                whole,
                cwd="/",
                umask=0o022,
                timeout=_PROBE_SECONDS,
                capture_output=True,
                text=True,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"bubblewrap does not run here ({error})"
    if done.returncode == 0:
        return None
    complaint = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return f"bubblewrap does not work here ({complaint})"


def returncode(reported: int) -> int:
    """bwrap's exit status as that of the container it ran, as `subprocess` has it."""
    number = reported - 128
    return -number if number in signal.valid_signals() else reported


@contextmanager
def _probe_directory() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="moorage-probe-") as base_dir:
        for name in ("model", "output", "tmp"):
            Path(base_dir, name).mkdir()
        yield base_dir


@functools.cache
def _system() -> tuple[str, ...]:
    """The part of a view that is the same for all."""
    arguments = _parents(Path(BASE_DIR)) + _parents(Path(CACHE_DIR))
    for directory in (*_SYSTEM, *_below("/opt", besides=Path(BASE_DIR).name)):
        arguments += ["--ro-bind-try", directory, directory]
    resolver = os.path.realpath("/etc/resolv.conf")
    if not resolver.startswith("/etc/"):
        arguments += ["--ro-bind-try", resolver, resolver]
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    for pattern in _DEVICES:
        for device in Path("/dev").glob(pattern):
            arguments += ["--dev-bind-try", str(device), str(device)]
    return tuple(arguments)


def _resolver(file: Path | None) -> tuple[str, ...]:
    """Its place may be a link, which is then in the view already and leads to where the file is to be."""
    place = os.path.realpath("/etc/resolv.conf")
    return () if file is None or not Path(place).exists() else ("--ro-bind", str(file), place)


def _with_temporary(files: list[str], own: Path) -> list[str]:
    """The files, and the private `/tmp`: on the disk, unless some of the files are below it.

    Nothing may be mounted inside of what a container wrote to, which could lead anywhere.
    """
    places = (TEMPORARY_DIR, "/var/tmp")  # noqa: S108
    if any(word.startswith(f"{place}/") for word in files for place in places):
        return [*(word for place in places for word in ("--perms", "1777", "--tmpfs", place)), *files]
    return [*files, *(word for place in places for word in ("--bind", str(own), place))]


def _parents(path: Path) -> list[str]:
    """bwrap makes them by itself, but so that only root can pass."""
    return [word for parent in reversed(path.parents[:-1]) for word in ("--dir", str(parent))]


def _below(directory: str, *, besides: str) -> list[str]:
    try:
        return [f"{directory}/{name}" for name in sorted(os.listdir(directory)) if name != besides]  # noqa: PTH208
    except OSError:
        return []


def _files(view: View, argv: Sequence[str]) -> list[str]:
    """Python, what the command line names, what the operator adds; then what must not show in any of it.

    A program without a directory is looked for in the server's own PATH: a model's would open what it names.
    """
    hidden = [Path(os.path.realpath(each)) for each in view.hidden]
    programs = _Readable(hidden)
    programs.add_python(Path(sys.executable))
    for directory in (Path(__file__).parents[2], *view.readable):
        programs.add_directory(directory)
    for entry in sys.path[1:]:  # the first is the working directory; editable installations add theirs
        programs.add_library(Path(entry))
    found = shutil.which(argv[0]) if "/" not in argv[0] else None
    for word in (found or argv[0], *argv[1:]):
        programs.add_word(word)
    arguments = programs.arguments()
    for directory in hidden:
        for outer in programs.directories + [Path(each) for each in _SYSTEM] + [Path("/opt")]:
            real = Path(os.path.realpath(outer))
            if directory.is_relative_to(real) and directory.is_dir():
                arguments += ["--tmpfs", str(outer / directory.relative_to(real))]
    return arguments


class _Readable:
    """Paths that a view shows read-only, under their own names."""

    def __init__(self, hidden: Sequence[Path]) -> None:
        self._hidden = hidden
        self.directories: list[Path] = []
        self._files: list[Path] = []
        self._links: dict[Path, str] = {}

    def arguments(self) -> list[str]:
        arguments: list[str] = []
        for path in sorted(self.directories):  # an outer one before those in it, which it would cover
            arguments += [*_parents(path), "--ro-bind-try", str(path), str(path)]
        for path in self._files:
            if not self._is_shown(path):
                arguments += [*_parents(path), "--ro-bind-try", str(path), str(path)]
        for path, target in self._links.items():
            if not self._is_shown(path):
                arguments += [*_parents(path), "--symlink", target, str(path)]
        return arguments

    def add_directory(self, path: Path) -> None:
        real = Path(os.path.realpath(path))
        if path.is_absolute() and path.is_dir() and not self._is_shown(path) and not self._is_hidden(real):
            self.directories.append(path)

    def add_library(self, path: Path) -> None:
        if path.is_dir():
            self._add_unless_wide(path)

    def add_word(self, word: str) -> None:
        """A word of a command line, if it is a path, also as `--option=/path`."""
        path = Path(word if word.startswith("/") else word.partition("=")[2])
        if not path.is_absolute() or self._is_shown(path):
            return
        if path.is_dir():
            self._add_unless_wide(path)
        elif path.is_file():
            self._add_program(path)

    def add_python(self, program: Path) -> None:
        """An interpreter with its library: a virtual environment and the installation behind it, or that alone."""
        prefix = program.parent.parent
        configuration = prefix / "pyvenv.cfg"
        if configuration.is_file():
            self.add_directory(prefix)
            for line in configuration.read_text(errors="replace").splitlines():
                key, _, value = line.partition("=")
                if key.strip() == "home" and value.strip():
                    self._add_unless_wide(Path(value.strip()).parent)
        self._add_links(program)
        self._add_unless_wide(Path(os.path.realpath(program)).parent.parent)

    def _add_program(self, path: Path) -> None:
        if (path.parent.parent / "pyvenv.cfg").is_file() or path.name.startswith("python"):
            self.add_python(path)
            return
        self._add_links(path)
        real = Path(os.path.realpath(path))
        if not self._is_hidden(real):
            self._files.append(real)
            self._add_unless_wide(real.parent)
            self._add_unless_wide(path.parent)

    def _add_links(self, path: Path) -> None:
        """Each link on the way from this name to the file."""
        while path.is_symlink() and path not in self._links:
            target = str(path.readlink())
            self._links[path] = target
            path = Path(os.path.normpath(path.parent / target))

    def _add_unless_wide(self, directory: Path) -> None:
        """Not a whole home, nor what the data directory is in: of those only the named file is shown."""
        real = Path(os.path.realpath(directory))
        homes = {Path("/"), Path("/home"), Path("/tmp"), Path("/var"), Path("/run"), Path.home()}  # noqa: S108
        is_wide = real in homes or any(hidden.is_relative_to(real) for hidden in self._hidden)
        if not is_wide and real.parent != Path("/home"):
            self.add_directory(directory)

    def _is_shown(self, path: Path) -> bool:
        outer = [*self.directories, *(Path(each) for each in _SYSTEM), Path("/opt")]
        return any(path.is_relative_to(each) for each in outer)

    def _is_hidden(self, path: Path) -> bool:
        return any(path.is_relative_to(each) for each in self._hidden)
