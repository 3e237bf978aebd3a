"""`moorage async`: the queue of asynchronous invocations."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from moorage.async_inference.base import Status
from moorage.cli.client import ERRORS, PrivateRoutes, client, complain, explain
from moorage.cli.inspection import local_time, print_table, styled
from moorage.cli.terminal import escape
from moorage.config import Settings

_LONGEST_PAGE = 1000
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

_SHOWN = {
    "EndpointName": "endpoint",
    "InferenceId": "inference id",
    "Attempts": "attempts",
    "ContainerDeaths": "deaths",
    "InvocationTimeoutSeconds": "timeout",
    "ContentType": "content type",
    "Accept": "accept",
    "CustomAttributes": "attributes",
    "InputLocation": "input",
    "OutputLocation": "output",
    "FailureLocation": "failure",
    "SuccessTopic": "success topic",
    "ErrorTopic": "error topic",
}
_SHOWN_TIMES = {
    "ReceivedTime": "received",
    "ExpiresTime": "expires",
    "FirstClaimedTime": "first attempt",
    "FinishedTime": "finished",
}


def list_queue(
    settings: Settings, endpoint: str | None, *, status: Status | None, limit: int, as_json: bool
) -> int:
    """The backlogs; or, of one endpoint or of one status, the newest invocations too."""
    try:
        routes = PrivateRoutes(settings)
        backlogs: list[dict[str, Any]] = routes.ask("GET", "async/backlogs")["Backlogs"]
        if endpoint is not None:
            backlogs = [backlog for backlog in backlogs if backlog["EndpointName"] == endpoint]
        if endpoint is None and status is None:
            return _print_backlogs(backlogs, as_json=as_json)
        if endpoint is not None and not backlogs:
            client(settings, "sagemaker").describe_endpoint(EndpointName=endpoint)  # says if there is none
        invocations = _newest(routes, endpoint, status, limit)
    except ERRORS as error:
        complain(explain(error))
        return 1
    if as_json:
        print(json.dumps({"Backlogs": backlogs, "Invocations": invocations}))
        return 0
    if endpoint is not None and backlogs:
        _print_backlogs(backlogs, as_json=False)
        print()
    _print_invocations(invocations, with_endpoint=endpoint is None)
    return 0


def show(settings: Settings, id: str, *, as_json: bool) -> int:
    try:
        found = PrivateRoutes(settings).ask("GET", "async/invocation", id=id)["Invocations"]
    except ERRORS as error:
        complain(explain(error))
        return 1
    if as_json:
        print(json.dumps(found))
        return 0
    for number, invocation in enumerate(found):
        if number:
            print()
        _print_invocation(invocation)
    return 0


def retry(
    settings: Settings, id: str | None, *, endpoint: str | None, all_failed: bool, as_json: bool
) -> int:
    if (id is None) == (endpoint is None) or all_failed != (endpoint is not None):
        complain("say what to retry: either an ID, or --endpoint NAME with --all-failed")
        return 2
    try:
        routes = PrivateRoutes(settings)
        if id is not None:
            retried = routes.ask("POST", "async/retry", id=id)["Retried"]
        else:
            reply = routes.ask("POST", "async/retry", endpoint=endpoint)
            retried = reply["Retried"]
            while "Before" in reply:
                reply = routes.ask("POST", "async/retry", endpoint=endpoint, before=reply["Before"])
                retried += reply["Retried"]
    except ERRORS as error:
        complain(explain(error))
        return 1
    if as_json:
        print(json.dumps({"Retried": retried}))
    else:
        print(f"{id} is queued again." if id is not None else f"Queued again: {retried:,}.")
    return 0


def cancel(settings: Settings, id: str, *, as_json: bool) -> int:
    try:
        reply = PrivateRoutes(settings).ask("POST", "async/cancel", id=id)
    except ERRORS as error:
        complain(explain(error))
        return 1
    print(json.dumps(reply) if as_json else f"{id} is cancelled.")
    return 0


def purge(settings: Settings, *, endpoint: str | None, older_than: str, yes: bool, as_json: bool) -> int:
    age = re.fullmatch(r"(\d{1,9})([smhd])", older_than)
    if age is None:
        complain(f"--older-than takes a number and one of s, m, h, d, such as 12h; not {older_than!r}")
        return 2
    if not yes:
        if not sys.stdin.isatty():
            complain("there is nobody to ask; say --yes")
            return 2
        whose = f"of {endpoint}" if endpoint else "of all endpoints"
        question = (
            f"Forget the invocations {whose} that ended more than {older_than} ago? Their objects stay."
        )
        if not typer.confirm(question):
            return 1
    try:
        seconds = int(age[1]) * _UNITS[age[2]]
        routes, forgotten, more = PrivateRoutes(settings), 0, True
        while more:
            reply = routes.ask("POST", "async/purge", endpoint=endpoint, older_than_seconds=seconds)
            forgotten += reply["Forgotten"]
            more = reply["More"]
    except ERRORS as error:
        complain(explain(error))
        return 1
    print(json.dumps({"Forgotten": forgotten}) if as_json else f"Forgotten: {forgotten:,}.")
    return 0


def _newest(
    routes: PrivateRoutes, endpoint: str | None, status: Status | None, limit: int
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    before = None
    while len(found) < limit:
        reply = routes.ask(
            "GET",
            "async/invocations",
            endpoint=endpoint,
            status=status,
            limit=min(limit - len(found), _LONGEST_PAGE),
            before=before,
        )
        found += reply["Invocations"]
        before = reply.get("Before")
        if before is None:
            break
    return found


def _print_backlogs(backlogs: Sequence[Mapping[str, Any]], *, as_json: bool) -> int:
    if as_json:
        print(json.dumps(backlogs))
        return 0
    if not backlogs:
        print("No asynchronous invocations. `moorage invoke NAME --async --file FILE` makes one.")
        return 0
    table = Table("Endpoint", box=None, pad_edge=False)
    for status in Status:
        table.add_column(status, justify="right")
    table.add_column("Oldest", justify="right")
    table.add_column("In/min", justify="right")
    table.add_column("Out/min", justify="right")
    for backlog in backlogs:
        table.add_row(
            escape(backlog["EndpointName"]),
            *(f"{backlog['Counts'][status]:,}" for status in Status),
            _duration(backlog["OldestSeconds"]),
            f"{backlog['ReceivedLastMinute']:,}",
            f"{backlog['FinishedLastMinute']:,}",
        )
    print_table(table)
    return 0


def _print_invocations(invocations: Sequence[Mapping[str, Any]], *, with_endpoint: bool) -> None:
    if not invocations:
        print("No such invocations.")
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("Inference id", no_wrap=True)
    for column in [*(["Endpoint"] if with_endpoint else []), "Status", "Received"]:
        table.add_column(column)
    table.add_column("Attempts", justify="right")
    for invocation in invocations:
        table.add_row(
            escape(invocation["InferenceId"]),
            *([escape(invocation["EndpointName"])] if with_endpoint else []),
            styled(invocation["Status"]),
            local_time(invocation["ReceivedTime"]),
            str(invocation["Attempts"]),
        )
    print_table(table)


def _print_invocation(invocation: Mapping[str, Any]) -> None:
    console = Console(soft_wrap=True)
    console.print(f"[bold]{invocation['InvocationId']}[/bold]  {styled(invocation['Status'])}")
    timeout = f"{invocation['InvocationTimeoutSeconds']} s"
    lines = {"InputLocation": "in the request", **invocation, "InvocationTimeoutSeconds": timeout}
    for member, label in _SHOWN.items():
        if member in lines:
            console.print(f"{label:<14} {escape(str(lines[member]))}")
    for member, label in _SHOWN_TIMES.items():
        if member in lines:
            console.print(f"{label:<14} {local_time(lines[member])}")
    if "Reason" in invocation:
        console.print(f"[red]{escape(invocation['Reason'])}[/red]")


def _duration(seconds: float | None) -> str:
    """Two digits or so: enough to see whether it is long."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
