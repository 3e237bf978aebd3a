"""What the commands of `moorage iam` share: how they end, and whom they are about."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec

from moorage.cli.client import ERRORS, complain, explain

P = ParamSpec("P")
Kind = Literal["User", "Role"]


class Misused(Exception):
    """The command line asks for what makes no sense; the text says why."""


class Failed(Exception):
    """It cannot be done now; the text says why."""


def command(work: Callable[P, None]) -> Callable[P, int]:
    """The work as one that returns its exit code, and tells in one line what went wrong."""

    @wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            work(*args, **kwargs)
        except Misused as error:
            complain(str(error))
            return 2
        except (Failed, *ERRORS) as error:
            complain(" ".join(explain(error).split()))
            return 1
        return 0

    return run


@dataclass(frozen=True, slots=True)
class Owner:
    """A user or role by its name, and the operations that there are for either."""

    iam: Any
    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind.lower()} {self.name}"

    @property
    def option(self) -> str:
        return f"--{self.kind.lower()} {self.name}"

    def call(self, operation: str, **members: Any) -> Any:
        """Such as `put_{}_policy`."""
        method = getattr(self.iam, operation.format(self.kind.lower()))
        return method(**{f"{self.kind}Name": self.name}, **members)

    def pages(self, operation: str, member: str) -> list[Any]:
        named = {f"{self.kind}Name": self.name}
        return pages(self.iam, operation.format(self.kind.lower()), member, **named)


def owner(iam: Any, user: str | None, role: str | None) -> Owner:
    """Raises `Misused` unless there is one of them."""
    found = optional_owner(iam, user, role)
    if found is None:
        raise Misused("say who: --user NAME or --role NAME")
    return found


def optional_owner(iam: Any, user: str | None, role: str | None) -> Owner | None:
    """Raises `Misused` if there are both."""
    if user is not None and role is not None:
        raise Misused("--user and --role cannot be combined")
    if user is not None:
        return Owner(iam, "User", user)
    return None if role is None else Owner(iam, "Role", role)


def pages(iam: Any, operation: str, member: str, **members: Any) -> list[Any]:
    """All that a list operation has."""
    return [each for page in iam.get_paginator(operation).paginate(**members) for each in page[member]]


def read_document(file: Path) -> str:
    """Raises `Misused`."""
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    except OSError as error:
        raise Misused(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Misused(f"{file} is not text in UTF-8") from error
