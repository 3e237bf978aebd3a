"""Runs behaviours one after another and prints each outcome as a line of JSON: for the clients in Python.

From its import on, whatever else prints does so on stderr: some SDKs talk as soon as they are imported.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

_OUTCOMES = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

Test = Callable[..., str | None]
"""Returns what is worth a note."""


class Skipped(Exception):
    """The client can show it, but not with this target."""


class Wrong(Exception):
    """The client saw something else."""


def required(name: str) -> str:
    """A variable of the environment."""
    value = os.environ.get(name)
    if not value:
        raise Skipped(f"{name} is not set")
    return value


def equal(actual: object, expected: object, what: str) -> None:
    check(actual == expected, f"{what}: {actual!r} instead of {expected!r}")


def check(condition: object, what: object) -> None:
    if not condition:
        raise Wrong(str(what))


def failure(call: Callable[[], object], *types: type[Exception]) -> Any:
    """The error that a call fails with, which is of one of the types."""
    try:
        reply = call()
    except types as error:
        return error
    expected = " or ".join(each.__name__ for each in types)
    raise Wrong(f"succeeded, where {expected} was expected: {reply!r}"[:500])


def run(behaviours: Mapping[str, Test], *arguments: object) -> None:
    """Run each with the arguments."""
    for behaviour, test in behaviours.items():
        outcome, detail = "passed", ""
        try:
            detail = test(*arguments) or ""
        except Skipped as reason:
            outcome, detail = "skipped", str(reason)
        except Exception as error:
            outcome, detail = "failed", f"{type(error).__name__}: {error}"
            sys.stderr.write(f"{behaviour}: {traceback.format_exc()}\n")
        print(
            json.dumps({"behaviour": behaviour, "outcome": outcome, "detail": detail}),
            file=_OUTCOMES,
            flush=True,
        )
