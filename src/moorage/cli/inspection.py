"""`moorage endpoints`, `moorage describe`, `moorage logs`."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from moorage.cli.client import ERRORS, PrivateRoutes, client, complain, explain
from moorage.cli.terminal import escape, say
from moorage.config import Settings

_WIDTH_OF_A_PIPE = 250
_STYLES = {"InService": "green", "Completed": "green", "Failed": "red", "Expired": "red"}


def list_endpoints(settings: Settings, *, as_json: bool) -> int:
    try:
        pages = client(settings, "sagemaker").get_paginator("list_endpoints").paginate()
        found = [endpoint for page in pages for endpoint in page["Endpoints"]]
    except ERRORS as error:
        complain(explain(error))
        return 1
    if as_json:
        print_json(found)
        return 0
    if not found:
        Console().print("No endpoints. `moorage deploy MODEL --name NAME` makes one.")
        return 0
    table = Table("Name", "Status", "Created", box=None, pad_edge=False)
    for endpoint in found:
        table.add_row(
            endpoint["EndpointName"],
            styled(endpoint["EndpointStatus"]),
            f"{endpoint['CreationTime']:%Y-%m-%d %H:%M:%S}",
        )
    Console().print(table)
    return 0


def describe(settings: Settings, name: str, *, as_json: bool) -> int:
    try:
        endpoint = client(settings, "sagemaker").describe_endpoint(EndpointName=name)
    except ERRORS as error:
        complain(explain(error))
        return 1
    endpoint.pop("ResponseMetadata", None)
    if as_json:
        print_json(endpoint)
        return 0
    console = Console()
    console.print(f"[bold]{escape(name)}[/bold]  {styled(endpoint['EndpointStatus'])}")
    console.print(f"configuration  {endpoint['EndpointConfigName']}")
    console.print(f"created        {endpoint['CreationTime']:%Y-%m-%d %H:%M:%S}")
    console.print(f"arn            {endpoint['EndpointArn']}")
    for variant in endpoint.get("ProductionVariants", []):
        current, desired = variant.get("CurrentInstanceCount"), variant.get("DesiredInstanceCount")
        images = ", ".join(image["SpecifiedImage"] for image in variant.get("DeployedImages", []))
        console.print(
            f"variant        {variant['VariantName']}: {current} of {desired} instances in service, "
            f"weight {variant.get('CurrentWeight'):g}, image {escape(images)}"
        )
    if endpoint.get("FailureReason"):
        console.print(f"[red]{escape(endpoint['FailureReason'])}[/red]")
    return 0


def logs(settings: Settings, name: str, *, follow: bool, lines: int, raw: bool, as_json: bool) -> int:
    try:
        for line in read_logs(settings, name, follow=follow, lines=lines):
            if as_json:
                print(line, flush=True)
            else:
                entry = json.loads(line)
                say(f"{entry['variant']}/{entry['instance_id']}  {entry['line']}", raw=raw)
    except ERRORS as error:
        complain(explain(error))
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def read_logs(settings: Settings, name: str, *, follow: bool = False, lines: int) -> Iterator[str]:
    """The lines of the private log route, each a JSON object."""
    routes = PrivateRoutes(settings)
    with routes.open("GET", f"endpoints/{name}/logs", follow=int(follow), lines=lines) as reply:
        for line in reply:
            yield line.decode().rstrip("\n")


def styled(status: str) -> str:
    return f"[{_STYLES.get(status, 'yellow')}]{status}[/]"


def local_time(iso: str) -> str:
    return f"{datetime.fromisoformat(iso).astimezone():%Y-%m-%d %H:%M:%S}"


def print_table(table: Table) -> None:
    """As wide as the terminal; in a pipe a line stays a line."""
    console = Console()
    (console if console.is_terminal else Console(width=_WIDTH_OF_A_PIPE)).print(table)


def print_json(document: object) -> None:
    """A reply of boto3's, on one line."""
    print(json.dumps(document, default=_json_value))


def _json_value(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)
