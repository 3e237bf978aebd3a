"""`moorage metrics`: what the invocations of each variant came to, and how long they took."""

from typing import Any

from rich.console import Console
from rich.table import Table

from moorage.cli.client import ERRORS, PrivateRoutes, client, complain, explain
from moorage.cli.inspection import print_json, print_table
from moorage.config import Settings

_QUANTILES = ("p50", "p90", "p99")
_COUNTS = {
    "Invocations": "Invocations",
    "4XX": "Invocation4XXErrors",
    "5XX": "Invocation5XXErrors",
    "Model errors": "InvocationModelErrors",
    "Platform errors": "PlatformErrors",
    "Abandoned": "AbandonedInvocations",
}


def show(settings: Settings, endpoint: str | None, *, as_json: bool) -> int:
    try:
        reply = PrivateRoutes(settings).ask("GET", "metrics/variants", endpoint=endpoint)
        variants: list[dict[str, Any]] = reply["Variants"]
        if endpoint is not None and not variants:
            client(settings, "sagemaker").describe_endpoint(EndpointName=endpoint)  # says if there is none
    except ERRORS as error:
        complain(explain(error))
        return 1
    if as_json:
        print_json(variants)
        return 0
    if not variants:
        Console().print("No endpoint is in service, so there is nothing to measure.")
        return 0
    table = Table("Endpoint", "Variant", box=None, pad_edge=False)
    for title in (*_COUNTS, f"ModelLatency {'/'.join(_QUANTILES)}", "OverheadLatency"):
        table.add_column(title, justify="right")
    for variant in variants:
        table.add_row(
            variant["EndpointName"],
            variant["VariantName"],
            *(f"{variant[name]:,}" for name in _COUNTS.values()),
            _quantiles(variant["ModelLatency"]),
            _quantiles(variant["OverheadLatency"]),
        )
    print_table(table)
    return 0


def _quantiles(statistics: dict[str, float] | None) -> str:
    if statistics is None:
        return "-"
    return " / ".join(_duration(statistics[name]) for name in _QUANTILES)


def _duration(microseconds: float) -> str:
    if microseconds < 1000:
        return f"{microseconds:.0f} µs"
    if microseconds < 1e6:
        return f"{microseconds / 1e3:.3g} ms"
    return f"{microseconds / 1e6:.3g} s"
