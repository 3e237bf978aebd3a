"""What the gateways have observed, added up.

Each tells once a second what it has counted since: increments, so nothing has to be known of its past, and of one
that dies only its last second is lost. They are kept here, in the one process that every gateway is connected to, and
begin at 0 when this process does. A gateway's report of itself lasts as long as its connection.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from moorage.counts import InvocationCounts

VariantKey = tuple[str, str, str]
"""Account id, endpoint name, variant name."""


class Observations:
    """Invocations by variant, the gateways' error replies by code, and the processes as they are now."""

    def __init__(self) -> None:
        self._endpoints: dict[tuple[str, str], dict[str, InvocationCounts]] = {}
        self._processes: dict[object, Mapping[str, Any]] = {}
        self.error_replies: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Observations {len(self._endpoints)} endpoints, {len(self._processes)} processes>"

    def expect(self, account_id: str, endpoint_name: str, variant_names: Iterable[str]) -> None:
        """An endpoint has these variants now. Those that it had stay: their last invocations may be under way."""
        variants = self._endpoints.setdefault((account_id, endpoint_name), {})
        for name in variant_names:
            variants.setdefault(name, InvocationCounts())

    def forget_endpoint(self, account_id: str, endpoint_name: str) -> None:
        self._endpoints.pop((account_id, endpoint_name), None)

    def take_in(self, source: object, report: Mapping[str, Any]) -> None:
        """What a process tells of its invocations (only what is said of endpoints that there are), or of itself."""
        for account_id, endpoint_name, variant_name, taken in report.get("counts", ()):
            counts = self._endpoints.get((account_id, endpoint_name), {}).get(variant_name)
            if counts is not None:
                counts.add(taken)
        self.error_replies.update(report.get("error_replies", {}))
        if "process" in report:
            self._processes[source] = report["process"]

    def forget_process(self, source: object) -> None:
        self._processes.pop(source, None)

    def variants(self) -> Iterable[tuple[VariantKey, InvocationCounts]]:
        for (account_id, endpoint_name), variants in self._endpoints.items():
            for variant_name, counts in variants.items():
                yield (account_id, endpoint_name, variant_name), counts

    def has_endpoint(self, account_id: str, endpoint_name: str) -> bool:
        return (account_id, endpoint_name) in self._endpoints

    def processes(self) -> list[Mapping[str, Any]]:
        return sorted(self._processes.values(), key=lambda process: (process["name"], process["pid"]))

    def in_flight(self) -> Counter[VariantKey]:
        """The invocations inside instances now, in all processes."""
        inside: Counter[VariantKey] = Counter()
        for process in self._processes.values():
            for account_id, endpoint_name, variant_name, number in process["in_flight"]:
                inside[account_id, endpoint_name, variant_name] += number
        return inside
