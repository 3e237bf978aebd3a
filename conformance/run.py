"""Runs real clients against a server and prints which behaviours each of them sees.

Usage: python -m conformance.run [--url URL] [--json FILE] [CLIENT …]

Without --url a server of its own is started, with everything the clients need. With it, or with CONFORMANCE_ENDPOINT
set, the clients use what the environment names (README.md). A client whose tools are not here is left out, unless CI
is set. Exits with 1 when a cell is red, with 2 when a client cannot be installed or run.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from conformance import table, target
from conformance.behaviours import Column, Outcome, load
from conformance.client import Client, ClientError, MissingTool

HERE = Path(__file__).parent
BEHAVIOURS = HERE / "behaviours.toml"
CLIENTS = HERE / "clients"


def clients(*ids: str) -> list[Client]:
    """The clients there are, or those named."""
    known = {path.parent.name: path.parent for path in sorted(CLIENTS.glob("*/client.toml"))}
    unknown = set(ids) - known.keys()
    if unknown:
        raise SystemExit(f"No such client: {', '.join(sorted(unknown))}. There are {', '.join(known)}.")
    return [Client.load(known[each]) for each in (ids or known)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("client", nargs="*")
    parser.add_argument("--url", help="a server that is running already")
    parser.add_argument("--json", type=Path, help="where to write every outcome with its detail")
    options = parser.parse_args()

    ready = []
    for client in clients(*options.client):
        try:
            client.check_tools()
            _say(f"{client.name}: installing what it needs")
            client.ensure_installed()
        except MissingTool as error:
            _say(f"{client.name} is left out: {error}. conformance/install.sh gets it.")
            if os.environ.get("CI"):
                return 2
            continue
        except ClientError as error:
            _say(f"{client.name}: {error}")
            return 2
        ready.append(client)

    behaviours = load(BEHAVIOURS)
    columns: dict[str, Column] = {}
    images = {glob: command for client in ready for glob, command in client.catalogue.items()}
    with _target(options.url, images) as environment:
        for client in ready:
            _say(f"{client.name}: calling")
            try:
                columns[client.name] = client.call(environment, behaviours)
            except ClientError as error:
                _say(f"{client.name}: {error}\n{client.log.read_text()[-4000:]}")
                return 2
    print(table.markdown(behaviours, columns))
    if options.json:
        options.json.write_text(json.dumps(table.document(behaviours, columns), indent=1) + "\n")
    red = any(cell.outcome is Outcome.FAILED for column in columns.values() for cell in column.values())
    return 1 if red else 0


def _target(
    url: str | None, images: Mapping[str, Sequence[str]]
) -> AbstractContextManager[target.Environment]:
    if url or os.environ.get("CONFORMANCE_ENDPOINT"):
        return target.named_elsewhere(url)
    return target.own_server(images)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
