"""Which endpoints there are, and which instances stand behind them: the gateway's picture of the world.

The controller publishes `EndpointRoute`s as plain JSON values (`routes_to_json`/`route_from_json`); a gateway
keeps them in a `RoutingTable`. A route is never changed, only replaced in one assignment, so a decision always
sees one consistent state. What outlives a replacement is the `Instance`: it carries the count of invocations
inside it, and is the same object in the old route and the new one.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from moorage.counts import InvocationCounts
from moorage.resources import arn

EndpointKey = tuple[str, str]
"""Account id and endpoint name."""

CountsTaken = tuple[str, str, str, dict[str, Any]]
"""Account id, endpoint name, variant name, and what `InvocationCounts.take` gave."""

InFlight = tuple[str, str, str, int]
"""Account id, endpoint name, variant name, and how many invocations are inside."""

_OBSERVED_AT_ONCE = 100


@dataclass(slots=True, eq=False)
class Instance:
    """A place an invocation can go to. `outstanding` counts the invocations reserved and not yet released.

    `generation` grows with every restart of the container: connections to an older one are worthless.
    """

    instance_id: str
    host: str
    port: int
    generation: int
    network: str = ""
    """The network namespace in which its host and port are (`moorage.network_namespace`); empty: the machine's."""
    outstanding: int = 0
    retired: bool = False
    """No route names it any more; it is drained once `outstanding` is 0."""
    address: bytes = b""
    """Its host and port as a `Host` header names them."""

    def __post_init__(self) -> None:
        self.address = b"%b:%d" % (self.host.encode(), self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantRoute:
    """A production variant. `instances` are only those that can take an invocation now; each of them at most
    `max_concurrency` at once."""

    name: str
    weight: float
    container_hostname: str
    instances: tuple[Instance, ...]
    max_concurrency: int = sys.maxsize
    counts: InvocationCounts = field(default_factory=InvocationCounts, compare=False)
    """Of its invocations. They outlive the route, as an `Instance` does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRoute:
    """An endpoint in service. `provisioning` means that its instances have not all been started yet.

    `max_concurrency` is how many asynchronous invocations an instance is given at once.
    """

    account_id: str
    name: str
    region: str
    variants: tuple[VariantRoute, ...]
    asynchronous: bool = False
    max_concurrency: int = 1
    provisioning: bool = False
    by_name: Mapping[str, VariantRoute] = field(default_factory=dict)
    total_weight: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {variant.name: variant for variant in self.variants})
        object.__setattr__(self, "total_weight", sum(variant.weight for variant in self.variants))

    @property
    def key(self) -> EndpointKey:
        return self.account_id, self.name

    @property
    def arn(self) -> str:
        return arn("endpoint", region=self.region, account_id=self.account_id, name=self.name)


class RoutingTable:
    """All routes by endpoint, and all instances by id.

    `max_concurrency` is how many invocations an instance takes at once from whoever keeps this table.
    `on_drained` is told the id of an instance once no route names it and no invocation is inside it; `on_changed`
    the account and name of an endpoint whose route is new, another, or gone.
    """

    def __init__(
        self,
        *,
        on_drained: Callable[[str], None],
        on_changed: Callable[[str, str], None] = lambda account_id, endpoint_name: None,
        max_concurrency: int = sys.maxsize,
    ) -> None:
        self._max_concurrency = max_concurrency
        self._on_changed = on_changed
        self._routes: dict[EndpointKey, EndpointRoute] = {}
        self._by_arn: dict[str, EndpointRoute] = {}
        self._instances: dict[str, Instance] = {}
        self._counts: dict[EndpointKey, dict[str, InvocationCounts]] = {}
        self._on_drained = on_drained
        self.complete = False
        """Whether a whole snapshot has ever been received."""

    def __repr__(self) -> str:
        outstanding = sum(instance.outstanding for instance in self._instances.values())
        return (
            f"<RoutingTable {len(self._routes)} endpoints, {len(self._instances)} instances, "
            f"{outstanding} outstanding>"
        )

    def find(self, account_id: str, endpoint_name: str) -> EndpointRoute | None:
        return self._routes.get((account_id, endpoint_name))

    def find_by_arn(self, arn: str) -> EndpointRoute | None:
        """The name in it is in lower case."""
        return self._by_arn.get(arn)

    def reset(self, routes: Iterable[Mapping[str, Any]]) -> None:
        """Replace everything by a whole snapshot."""
        documents = list(routes)
        self.keep_only({(document["account_id"], document["name"]) for document in documents})
        for document in documents:
            self.put(document)
        self.complete = True

    def keep_only(self, keys: Set[EndpointKey]) -> None:
        """Remove all routes but these."""
        for key in [key for key in self._routes if key not in keys]:
            self.remove(*key)

    def put(self, document: Mapping[str, Any]) -> None:
        """Add or replace one route, given as the controller publishes it."""
        route = self._route(document)
        before = self._routes.get(route.key)
        if before is not None:
            del self._by_arn[before.arn]
        self._routes[route.key] = self._by_arn[route.arn] = route
        if before is not None:
            kept = {instance for variant in route.variants for instance in variant.instances}
            self._retire(
                instance
                for variant in before.variants
                for instance in variant.instances
                if instance not in kept
            )
        self._on_changed(*route.key)

    def remove(self, account_id: str, endpoint_name: str) -> None:
        route = self._routes.pop((account_id, endpoint_name), None)
        if route is not None:
            del self._by_arn[route.arn]
            del self._counts[route.key]
            self._retire(instance for variant in route.variants for instance in variant.instances)
            self._on_changed(*route.key)

    def release(self, instance: Instance) -> None:
        """End a reservation made by `selection.reserve`. Exactly once for each."""
        instance.outstanding -= 1
        if instance.retired and instance.outstanding == 0:
            self._forget(instance)

    def is_drained(self, instance_id: str) -> bool:
        """Whether nothing is inside this instance and nothing new can get in."""
        return instance_id not in self._instances

    def observe(self) -> Iterator[tuple[list[CountsTaken], list[InFlight]]]:
        """What every variant has counted since the last time, and how many invocations are inside its instances now,
        where there are any. Some endpoints at a time: there may be more than should keep everyone waiting."""
        keys = list(self._counts)
        for start in range(0, len(keys), _OBSERVED_AT_ONCE):
            some = keys[start : start + _OBSERVED_AT_ONCE]
            yield (
                [each for key in some for each in self._take(key)],
                [each for key in some for each in self._inside(key)],
            )

    def _take(self, key: EndpointKey) -> list[CountsTaken]:
        variants = self._counts.get(key, {})
        return [
            (*key, name, taken) for name, counts in variants.items() if (taken := counts.take()) is not None
        ]

    def _inside(self, key: EndpointKey) -> list[InFlight]:
        route = self._routes.get(key)
        if route is None:
            return []
        return [
            (*key, variant.name, number)
            for variant in route.variants
            if (number := sum([instance.outstanding for instance in variant.instances]))
        ]

    def _route(self, document: Mapping[str, Any]) -> EndpointRoute:
        counts = self._counts.setdefault((document["account_id"], document["name"]), {})
        variants = tuple(self._variant(variant, counts) for variant in document["variants"])
        return EndpointRoute(
            account_id=document["account_id"],
            name=document["name"],
            region=document["region"],
            variants=variants,
            asynchronous=document["asynchronous"],
            max_concurrency=document["max_concurrency"],
            provisioning=document["provisioning"],
        )

    def _variant(
        self, document: Mapping[str, Any], counts_by_name: dict[str, InvocationCounts]
    ) -> VariantRoute:
        instances = tuple(self._instance(each) for each in document["instances"])
        counts = counts_by_name.setdefault(document["name"], InvocationCounts())
        counts.stands_behind(len(instances))
        return VariantRoute(
            name=document["name"],
            weight=document["weight"],
            container_hostname=document["container_hostname"],
            instances=instances,
            max_concurrency=self._max_concurrency,
            counts=counts,
        )

    def _instance(self, document: Mapping[str, Any]) -> Instance:
        instance_id = document["instance_id"]
        instance = self._instances.get(instance_id)
        if instance is None or instance.generation != document["generation"]:
            instance = Instance(
                instance_id,
                document["host"],
                document["port"],
                document["generation"],
                document.get("network", ""),
            )
            self._instances[instance_id] = instance
        instance.retired = False
        return instance

    def _retire(self, instances: Iterable[Instance]) -> None:
        for instance in instances:
            instance.retired = True
            if instance.outstanding == 0:
                self._forget(instance)

    def _forget(self, instance: Instance) -> None:
        # A restarted container has taken the id over: then only the old generation is gone.
        if self._instances.get(instance.instance_id) is instance:
            del self._instances[instance.instance_id]
            self._on_drained(instance.instance_id)


def route_document(
    *,
    account_id: str,
    name: str,
    region: str,
    variants: Iterable[Mapping[str, Any]],
    asynchronous: bool = False,
    max_concurrency: int = 1,
    provisioning: bool = False,
) -> dict[str, Any]:
    """A route as the controller publishes it. Each variant: `name`, `weight`, `container_hostname` and
    `instances` (each `instance_id`, `host`, `port`, `generation`, and `network` unless it is the machine's)."""
    return {
        "account_id": account_id,
        "name": name,
        "region": region,
        "variants": list(variants),
        "asynchronous": asynchronous,
        "max_concurrency": max_concurrency,
        "provisioning": provisioning,
    }
