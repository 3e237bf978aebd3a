#!/usr/bin/env python3
"""Installs what a locked requirements file names, with uv, which takes a tenth of pip's time.

    python requirements/install.py [ENVIRONMENT REQUIREMENTS [OPTION ...]]

Without arguments it only says whether this Python will do. The virtual environment is made if it is not there. uv is
the one beside this Python or in the environment; if there is none, pip installs it there from hashes, and where it
cannot be had, pip does the rest. uv is given the indexes and certificates that pip is configured with.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_UV_LOCK = Path(__file__).resolve().with_name("uv.txt")
_OLDEST, _NEWEST = (3, 11), (3, 14)


def main() -> None:
    if not _OLDEST <= sys.version_info[:2] <= _NEWEST:
        sys.exit(
            f"Python {sys.version_info[0]}.{sys.version_info[1]} cannot run Moorage: it needs 3.11 to 3.14. "
            "Install one of these and name it: make PYTHON=/path/to/python3.12 ..."
        )
    if len(sys.argv) == 1:
        return
    environment, requirements, options = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    python = environment / "bin" / "python"
    what = ["install", "--quiet", "--require-hashes", *options, "-r"]
    uv = Path(sys.executable).with_name("uv")
    if uv.exists():
        _run(uv, "venv", "--quiet", "--python", sys.executable, "--allow-existing", environment)
    else:
        if not python.exists():
            _run(sys.executable, "-m", "venv", environment)
        uv = environment / "bin" / "uv"
        if not uv.exists():
            subprocess.run(
                [python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", _UV_LOCK], check=False
            )
    if uv.exists():
        _run(uv, "pip", *what, requirements, "--python", python, environment=_uv_environment(python))
    else:
        _run(python, "-m", "pip", *what, requirements)


def _run(*command: str | Path, environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, env={**(environment or {}), **os.environ}, check=False)
    if done.returncode:  # it has said why
        sys.exit(done.returncode)


def _uv_environment(python: Path) -> dict[str, str]:
    pip = [sys.executable if not python.with_name("pip").exists() else str(python), "-m", "pip"]
    listed = subprocess.run([*pip, "config", "list"], check=True, capture_output=True, text=True).stdout
    return uv_variables(pip_options(listed))


def pip_options(listed: str) -> dict[str, str]:
    """The options in the output of `pip config list`, as `pip install` takes them: those of the command before those
    for all commands, and variables before files."""
    options: dict[str, str] = {}
    for scope in ("global", "install", ":env:"):
        for name, value in re.findall(rf"^{scope}\.([\w-]+)='(.*)'$", listed, re.MULTILINE):
            options[name] = value.replace("\\n", " ").strip()
    return options


def uv_variables(options: Mapping[str, str]) -> dict[str, str]:
    """The variables that make uv do as pip does with these options.

    pip looks for a version in all indexes, and so does uv with the strategy named here; the hashes say which files
    will do.
    """
    variables = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    for option, variable in (
        ("index-url", "UV_DEFAULT_INDEX"),
        ("extra-index-url", "UV_INDEX"),
        ("find-links", "UV_FIND_LINKS"),
        ("no-index", "UV_NO_INDEX"),
        ("trusted-host", "UV_INSECURE_HOST"),
        ("cert", "SSL_CERT_FILE"),
        ("default-timeout", "UV_HTTP_TIMEOUT"),
        ("timeout", "UV_HTTP_TIMEOUT"),
    ):
        if option in options:
            value = options[option]
            variables[variable] = ",".join(value.split()) if option == "find-links" else value
    return variables


if __name__ == "__main__":
    main()
