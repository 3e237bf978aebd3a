"""`python -m moorage.runtime.serve`: the process that `moorage serve` becomes. Settings in `MOORAGE_SETTINGS`."""

import asyncio
import os
import resource
import sys

from moorage import heap
from moorage.config import Settings
from moorage.runtime import logs
from moorage.runtime.last_words import CannotServe
from moorage.runtime.supervisor import serve


def main() -> int:
    logs.configure("moorage")
    _allow_many_files()
    settings = Settings.from_json(os.environ.pop("MOORAGE_SETTINGS"))
    try:
        asyncio.run(serve(settings, announce=_announce))
    except CannotServe as error:
        print(f"moorage: {error}", file=sys.stderr)
        return 1
    return 0


def _allow_many_files() -> None:
    """A gateway holds two sockets for each invocation; the usual limit of 1024 is soon reached."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _announce(url: str) -> None:
    print(f"Moorage is ready at {url}", flush=True)
    heap.give_back()


if __name__ == "__main__":
    sys.exit(main())
