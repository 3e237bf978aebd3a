"""`code/requirements.txt` -> a cached Python environment that holds it.

An environment is a venv whose own packages come first and the host's packages behind them, so that pip
installs only what is missing. It is built in a directory of its own, which never moves (scripts hold their
path), and published by an atomic rename of a symbolic link: a crash leaves no half-built environment, and
whoever holds the lock clears what it left behind.
"""

import ctypes
import fcntl
import hashlib
import importlib.util
import re
import shutil
import signal
import site
import subprocess
import sys
import sysconfig
import uuid
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moorage.modelhost.errors import StartupError

_PR_SET_PDEATHSIG = 1

# Lines that refer to other files, whose content is then part of what the environment depends on.
_REFERS_TO_FILES = re.compile(r"^\s*(-r|-c|-e|--requirement|--constraint|--editable|\.)|file:", re.MULTILINE)


def python_for(requirements: Path, environments_dir: Path) -> Path:
    """The interpreter of the environment for this file, which is built if nobody has yet.

    Blocks, while another process builds the same one too. StartupError when pip fails.
    """
    key = _key(requirements)
    link = environments_dir / key
    python = link / "bin" / "python"
    if python.exists():
        return python
    environments_dir.mkdir(parents=True, exist_ok=True)
    with _locked(environments_dir / f"{key}.lock"):
        if not python.exists():
            for remains in environments_dir.glob(f"{key}.build-*"):
                _remove(remains)
            _build(requirements, link)
    return python


def _key(requirements: Path) -> str:
    content = requirements.read_bytes()
    digest = hashlib.sha256()
    for part in (content, sys.version.encode(), sys.prefix.encode()):
        digest.update(hashlib.sha256(part).digest())
    if _REFERS_TO_FILES.search(content.decode(errors="replace")):
        for path in sorted(requirements.parent.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path).encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """The kernel releases the lock with the process, however that ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(requirements: Path, link: Path) -> None:
    built = link.with_name(f"{link.name}.build-{uuid.uuid4().hex}")
    try:
        # The host's own pip serves, seen through the .pth file; building one in takes seconds.
        has_pip = importlib.util.find_spec("pip") is not None
        venv.EnvBuilder(symlinks=True, with_pip=not has_pip).create(built)
        _see_packages_of_parent(built)
        _pip_install(requirements, built)
        pointer = built / "published"
        pointer.symlink_to(built.name)
        pointer.replace(link)
    except BaseException:
        _remove(built)
        raise


def _see_packages_of_parent(built: Path) -> None:
    packages = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(built), "platbase": str(built)}))
    directories = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        directories.append(site.getusersitepackages())
    # addsitedir, not plain paths: it also follows the parent's own .pth files (editable installs).
    lines = [f"import site; site.addsitedir({directory!r})\n" for directory in directories]
    (packages / "parent.pth").write_text("".join(lines))


def _pip_install(requirements: Path, built: Path) -> None:
    command = [str(built / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--no-input", "--progress-bar", "off", "-r", str(requirements)]
    complaint = ""
    with subprocess.Popen(
        command,
        cwd=requirements.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # We are the only thread yet, so this is safe; it keeps pip from outliving us.
        preexec_fn=_die_with_parent,
    ) as pip:
        assert pip.stdout is not None
        try:
            for line in pip.stdout:
                print(line, end="", file=sys.stderr, flush=True)
                complaint = line.strip() if line.startswith("ERROR:") else complaint
        except BaseException:
            pip.kill()
            raise
    if pip.returncode:
        raise StartupError(
            f"Installing code/requirements.txt failed with exit code {pip.returncode} ({complaint or 'see above'}): "
            "correct the file, or check that this machine reaches its package index."
        )


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
