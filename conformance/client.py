"""A client: a directory with a program in some language, and a client.toml that says how to install and run it.

Whatever it installs and builds stays below `.build/` or in its own directory, and is kept until one of its files
changes.
"""

import fnmatch
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conformance.behaviours import Behaviour, Cell, Column, Outcome

_BUILD = Path(__file__).parent / ".build"
_PATH = f"{_BUILD / 'tools' / 'bin'}{os.pathsep}{os.environ['PATH']}"
"""install.sh puts there what it cannot get from the system."""
_TIMEOUT_SECONDS = 300.0
_INSTALL_SECONDS = 900.0
_BUILT = ("node_modules", "target", "__pycache__")


class ClientError(Exception):
    """A client cannot be installed or run."""


class MissingTool(ClientError):
    """A program that a client needs is not on this machine, or too old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A program that must be here, as the command that prints its version."""

    command: Sequence[str]
    at_least: str = ""

    def check(self) -> None:
        program = shutil.which(self.command[0], path=_PATH)
        if program is None:
            raise MissingTool(f"{self.command[0]} is not installed")
        if self.at_least:
            done = subprocess.run([program, *self.command[1:]], capture_output=True, text=True, check=True)
            version = _version(done.stdout + done.stderr)
            if version < _version(self.at_least):
                shown = ".".join(map(str, version))
                raise MissingTool(f"{self.command[0]} is {shown}, and must be at least {self.at_least}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """What a client.toml says."""

    directory: Path
    name: str
    run: Sequence[str]
    install: Sequence[Sequence[str]] = ()
    tools: tuple[Tool, ...] = ()
    not_covered: Mapping[str, str] = field(default_factory=dict)
    """Globs of ids, and why this client cannot show them."""
    images: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Globs of the images that it deploys, and the command lines that stand for them."""

    @classmethod
    def load(cls, directory: Path) -> "Client":
        document: dict[str, Any] = tomllib.loads((directory / "client.toml").read_text())
        tools = tuple(Tool(**each) for each in document.pop("tools", ()))
        return cls(directory=directory, tools=tools, **document)

    @property
    def id(self) -> str:
        return self.directory.name

    @property
    def log(self) -> Path:
        """What the client's program has said on stderr."""
        return self._build / "stderr.log"

    heavy: bool = False
    """Whether its installation is so large that the tests leave it to `make conformance`."""

    @property
    def catalogue(self) -> dict[str, list[str]]:
        """Its images, for the server that is to run them."""
        return {glob: self._filled(command) for glob, command in self.images.items()}

    def check_tools(self) -> None:
        for tool in self.tools:
            tool.check()

    def ensure_installed(self) -> None:
        """Run the install commands, unless they have been run for exactly these files."""
        stamp, digest = self._build / "stamp", self._digest()
        if stamp.exists() and stamp.read_text() == digest:
            return
        self._build.mkdir(parents=True, exist_ok=True)
        stamp.unlink(missing_ok=True)
        for command in self.install:
            done = subprocess.run(
                self._filled(command),
                cwd=self.directory,
                env={**os.environ, "PATH": _PATH},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_INSTALL_SECONDS,
            )
            if done.returncode:
                raise ClientError(f"`{' '.join(command)}` failed:\n{done.stdout[-4000:]}")
        stamp.write_text(digest)

    def call(self, environment: Mapping[str, str], behaviours: Iterable[Behaviour]) -> Column:
        """Run the program and read what it reports."""
        self._build.mkdir(parents=True, exist_ok=True)
        with (
            self.log.open("w") as errors,
            subprocess.Popen(
                self._filled(self.run),
                cwd=self.directory,
                env={**environment, "PATH": _PATH},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            ) as process,
        ):
            try:
                output, _ = process.communicate(timeout=_TIMEOUT_SECONDS)
                ending = f"the program ended with status {process.returncode}" if process.returncode else ""
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output, _ = process.communicate()
                ending = f"the program was not done after {_TIMEOUT_SECONDS:.0f} seconds"
        return self._column(behaviours, _reported(output), ending)

    def _column(self, behaviours: Iterable[Behaviour], reported: Mapping[str, Cell], ending: str) -> Column:
        ids = [behaviour.id for behaviour in behaviours]
        unknown = reported.keys() - set(ids)
        if unknown:
            raise ClientError(f"it reports what is not in behaviours.toml: {', '.join(sorted(unknown))}")
        column = {}
        for each in ids:
            reason = next((why for glob, why in self.not_covered.items() if fnmatch.fnmatch(each, glob)), "")
            if each in reported:
                column[each] = reported[each]
            elif ending and not reason:
                column[each] = Cell(outcome=Outcome.FAILED, detail=ending)
            else:
                column[each] = Cell(outcome=Outcome.NOT_COVERED, detail=reason)
        return column

    @property
    def _build(self) -> Path:
        return _BUILD / self.id

    def _filled(self, command: Sequence[str]) -> list[str]:
        places = {"{python}": sys.executable, "{build}": str(self._build), "{here}": str(self.directory)}
        return [
            re.sub(r"\{python\}|\{build\}|\{here\}", lambda found: places[found[0]], word) for word in command
        ]

    def _digest(self) -> str:
        digest = hashlib.sha256(sys.executable.encode())
        for path in sorted(self.directory.rglob("*")):
            relative = path.relative_to(self.directory)
            if path.is_file() and not set(_BUILT) & set(relative.parts):
                digest.update(str(relative).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


def _reported(output: str) -> dict[str, Cell]:
    reported = {}
    for line in output.splitlines():
        try:
            document = json.loads(line)
            cell = Cell(outcome=Outcome(document["outcome"]), detail=str(document.get("detail", "")))
            reported[str(document["behaviour"])] = cell
        except (ValueError, KeyError, TypeError) as error:
            raise ClientError(
                f"its output has a line that is no outcome: {line[:200]!r} ({error!r})"
            ) from error
    return reported


def _version(text: str) -> tuple[int, ...]:
    found = re.search(r"\d+(\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()
