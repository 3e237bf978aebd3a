"""`code/requirements.txt` -> a cached Python environment that holds it.

An environment is a venv whose own packages come first and the host's packages behind them. uv installs into it, and
where it is not there, or cannot, pip does, which takes longer and installs only what the host has not got: so that
where no index can be reached, what the host has will do. What is downloaded is kept beside the environments.

An environment is built in a directory of its own, which never moves (scripts hold their path), and published by an
atomic rename of a symbolic link: a crash leaves no half-built environment, and whoever holds the lock clears what it
left behind.
"""

import ctypes
import fcntl
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import signal
import site
import subprocess
import sys
import sysconfig
import time
import uuid
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from moorage.modelhost.errors import StartupError

logger = logging.getLogger("modelhost")

_PR_SET_PDEATHSIG = 1
_OF_INSTALLERS = ("PIP_", "UV_")
_PIP_AND_UV = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_NO_INDEX": "UV_NO_INDEX",
    "PIP_TRUSTED_HOST": "UV_INSECURE_HOST",
    "PIP_CERT": "SSL_CERT_FILE",
    "PIP_DEFAULT_TIMEOUT": "UV_HTTP_TIMEOUT",
}

# Lines that refer to other files, whose content is then part of what the environment depends on.
_REFERS_TO_FILES = re.compile(r"^\s*(-r|-c|-e|--requirement|--constraint|--editable|\.)|file:", re.MULTILINE)


def python_for(requirements: Path | None, environments_dir: Path, *, pins: Sequence[str] = ()) -> Path:
    """The interpreter of the environment for this file and these lines, which is built if nobody has yet.

    Blocks, while another process builds the same one too. StartupError when the installation fails.
    """
    key = _key(requirements, pins)
    link = environments_dir / key
    python = link / "bin" / "python"
    if python.exists():
        return python
    environments_dir.mkdir(parents=True, exist_ok=True)
    with _locked(environments_dir / f"{key}.lock"):
        if not python.exists():
            for remains in environments_dir.glob(f"{key}.build-*"):
                _remove(remains)
            _build(requirements, pins, link)
    return python


def _key(requirements: Path | None, pins: Sequence[str]) -> str:
    """Of all that an environment depends on: what is asked for, the interpreter, the host's packages, and where
    packages come from."""
    content = b"" if requirements is None else requirements.read_bytes()
    digest = hashlib.sha256()
    indexes = {name: os.environ[name] for name in sorted(os.environ) if name.startswith(_OF_INSTALLERS)}
    others = repr((pins, sys.version, sys.prefix, _host_packages(), indexes))
    for part in (content, others.encode()):
        digest.update(hashlib.sha256(part).digest())
    if requirements is None:
        return digest.hexdigest()[:32]
    if _REFERS_TO_FILES.search(content.decode(errors="replace")):
        for path in sorted(requirements.parent.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path).encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]


def _host_packages() -> list[str]:
    """The names of their metadata, which tell the versions."""
    return sorted(
        entry.name
        for directory in site.getsitepackages()
        if Path(directory).is_dir()
        for entry in Path(directory).iterdir()
        if entry.name.endswith((".dist-info", ".egg-info"))
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """The kernel releases the lock with the process, however that ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(requirements: Path | None, pins: Sequence[str], link: Path) -> None:
    built = link.with_name(f"{link.name}.build-{uuid.uuid4().hex}")
    try:
        # The host's own pip serves, seen through the .pth file; building one in takes seconds.
        has_pip = importlib.util.find_spec("pip") is not None
        venv.EnvBuilder(symlinks=True, with_pip=not has_pip).create(built)
        _see_packages_of_parent(built)
        _install(requirements, pins, built)
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


def _install(requirements: Path | None, pins: Sequence[str], built: Path) -> None:
    wanted = [*pins, *(("-r", str(requirements)) if requirements is not None else ())]
    folder = Path.cwd() if requirements is None else requirements.parent
    python = str(built / "bin" / "python")
    downloads = built.parent / "downloads"
    environment = {
        "UV_CACHE_DIR": str(downloads / "uv"),
        "PIP_CACHE_DIR": str(downloads / "pip"),
        **os.environ,
    }
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    began = time.monotonic()
    if uv is not None:
        command = [uv, "pip", "install", "--python", python, "--no-config", *wanted]
        code, _ = _run(command, folder, _uv_variables(environment) | environment)
        if not code:
            logger.info("installed in %.1f s", time.monotonic() - began)
            return
        logger.info("uv cannot install it (exit code %d): pip tries", code)
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    code, complaint = _run([*command, "--progress-bar", "off", *wanted], folder, environment)
    if code:
        own = ["code/requirements.txt"] if requirements is not None else []
        advice = "correct the file" if own else "name another image, or let the installed versions run"
        raise StartupError(
            f"Installing {' with '.join([*own, *pins])} failed with exit code {code} ({complaint or 'see above'}): "
            f"{advice}, or check that this machine reaches its package index."
        )
    logger.info("installed in %.1f s", time.monotonic() - began)


def _uv_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """What the variables of pip say, for uv. pip looks for a version in all indexes."""
    found = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    for pip, uv in _PIP_AND_UV.items():
        value = environ.get(pip)
        if value:
            found[uv] = ",".join(value.split()) if uv == "UV_FIND_LINKS" else value
    return found


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """The exit code, and the last complaint of what it says, all of which goes to the log."""
    complaint = ""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # We are the only thread yet, so this is safe; it keeps the installer from outliving us.
        preexec_fn=_die_with_parent,
    ) as installer:
        assert installer.stdout is not None
        try:
            for line in installer.stdout:
                print(line, end="", file=sys.stderr, flush=True)
                complaint = line.strip() if line.startswith("ERROR:") else complaint
        except BaseException:
            installer.kill()
            raise
    return installer.returncode, complaint


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
