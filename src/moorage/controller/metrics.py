"""`GET /_moorage/metrics`: everything that is measured, in the text formats of Prometheus and OpenMetrics.

`GET /_moorage/metrics/variants` is the same of the caller's own variants, as JSON with Amazon CloudWatch's names, for
the command line; `?endpoint=` for one. docs/metrics.md says what each metric means.

Whoever shows the scraper's token, and the account of the settings, see everything; other accounts see their own
endpoints and nothing of the server. What there is of thousands of endpoints is made and sent in pieces, between which
everything else has its turn; what is counted meanwhile may be in one number and not yet in another.
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from itertools import accumulate, islice
from typing import Any, TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from moorage.async_inference.base import Queue, Status
from moorage.controller.observations import Observations, VariantKey
from moorage.counts import BOUNDS, Histogram, InvocationCounts
from moorage.launchers.base import InstanceStatus
from moorage.process_usage import process_usage
from moorage.storage.base import ResourceStore

_ENDPOINT = ("account_id", "endpoint_name")
_VARIANT = (*_ENDPOINT, "variant_name")
_PROCESS = ("process", "pid")

_COUNTERS = {
    "invocations": ("moorage_invocations", "Invocations of the variant that have ended."),
    "invocations_per_instance": (
        "moorage_invocations_per_instance",
        "The same, each divided by the instances that the variant had at its time.",
    ),
    "model_4xx": ("moorage_invocation_4xx_errors", "Invocations that the model answered with 4xx."),
    "model_5xx": ("moorage_invocation_5xx_errors", "Invocations that the model answered with 5xx."),
    "model_errors": (
        "moorage_invocation_model_errors",
        "Invocations that the model did not answer with 2xx, or not in time, or not in full.",
    ),
    "mid_stream_errors": (
        "moorage_mid_stream_errors",
        "Response streams that failed after they had begun.",
    ),
    "platform_errors": (
        "moorage_invocation_platform_errors",
        "Invocations that reached no model, or failed by a fault of the server.",
    ),
    "client_gone": (
        "moorage_invocations_abandoned",
        "Invocations whose client went away before it had its reply.",
    ),
}
_HISTOGRAMS = {
    "model_latency": (
        "moorage_model_latency_seconds",
        "From the request's way to the container to its whole reply.",
    ),
    "overhead_latency": (
        "moorage_overhead_latency_seconds",
        "From the last byte of the request to the reply, less the model's latency.",
    ),
    "first_chunk_latency": (
        "moorage_first_chunk_latency_seconds",
        "From the last byte of the request to the first chunk of its response stream.",
    ),
    "first_chunk_model_latency": (
        "moorage_first_chunk_model_latency_seconds",
        "From the request's way to the container to the first byte of its stream.",
    ),
    "first_chunk_overhead_latency": (
        "moorage_first_chunk_overhead_latency_seconds",
        "The first chunk's latency, less the model's part of it.",
    ),
}
_CLOUDWATCH_COUNTS = {
    "Invocations": "invocations",
    "InvocationsPerInstance": "invocations_per_instance",
    "Invocation4XXErrors": "model_4xx",
    "Invocation5XXErrors": "model_5xx",
    "InvocationModelErrors": "model_errors",
    "MidStreamErrors": "mid_stream_errors",
}
_CLOUDWATCH_LATENCIES = {
    "ModelLatency": "model_latency",
    "OverheadLatency": "overhead_latency",
    "FirstChunkLatency": "first_chunk_latency",
    "FirstChunkModelLatency": "first_chunk_model_latency",
    "FirstChunkOverheadLatency": "first_chunk_overhead_latency",
}
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}

T = TypeVar("T")
InstanceStatuses = Mapping[tuple[str, str, str, InstanceStatus], int]
Finished = Mapping[tuple[str, str, Status], int]


_PIECE = 200
"""Samples that are made at once, in about a millisecond."""

_MOST_BUCKETS = 30_000
"""Of all histograms, in one scrape: about 4 MB."""


class Detail(Enum):
    """How much is said of latencies. The value is the bounds of the buckets, as indexes of `BOUNDS`."""

    ALL = tuple(range(len(BOUNDS)))
    COARSE = tuple(at for at, bound in enumerate(BOUNDS) if math.log10(bound).is_integer())  # powers of ten
    NONE = ()  # counts and sums only


def detail_of(histograms: int, setting: str) -> Detail:
    """How much is said of so many histograms. `setting` is that of `metrics_buckets`."""
    if setting != "auto":
        return Detail[setting.upper()]
    return next(each for each in Detail if histograms * len(each.value) <= _MOST_BUCKETS)


class Metrics:
    """Reads what there is to measure. `instances` and `finished` are asked for the instances that there are, and for
    the asynchronous invocations that have ended. `buckets` is the setting `metrics_buckets`."""

    def __init__(
        self,
        *,
        observations: Observations,
        store: ResourceStore,
        queue: Queue,
        instances: Callable[[], InstanceStatuses],
        finished: Callable[[], Finished],
        buckets: str = "auto",
    ) -> None:
        self._observations = observations
        self._store = store
        self._queue = queue
        self._instances = instances
        self._finished = finished
        self._buckets = buckets

    async def read(self, account_id: str | None) -> Iterator[Metric]:
        """What one account may see; None: everything. A family of many samples comes as several, one after the
        other; each is made when it is asked for."""

        def visible(key: Sequence[Any]) -> bool:
            return account_id is None or key[0] == account_id

        instances = {key: number for key, number in self._instances().items() if visible(key)}
        variants = [(key, counts) for key, counts in self._observations.variants() if visible(key)]
        endpoints = {k: n for k, n in (await self._store.endpoint_statuses()).items() if visible(k)}
        of_queue = await self._of_queue(visible, instances)
        detail = detail_of(await _histograms(variants), self._buckets)

        def families() -> Iterator[Metric]:
            yield from _of_variants(variants, detail)
            yield from _gauge(
                "moorage_concurrent_requests",
                "Invocations inside the variant's containers now.",
                _VARIANT,
                ((key, number) for key, number in self._observations.in_flight().items() if visible(key)),
            )
            yield from _gauge(
                "moorage_instances", "Instances by status.", (*_VARIANT, "status"), _named(instances)
            )
            yield from _gauge(
                "moorage_endpoints", "Endpoints by status.", ("account_id", "status"), _named(endpoints)
            )
            yield from of_queue
            if account_id is None:
                yield from self._of_server()

        return families()

    def variants(self, account_id: str, endpoint_name: str | None) -> Iterator[dict[str, Any]]:
        """An account's variants with CloudWatch's names. Latencies are in microseconds, as they are there."""
        return (
            {
                "EndpointName": key[1],
                "VariantName": key[2],
                **{name: getattr(counts, ours) for name, ours in _CLOUDWATCH_COUNTS.items()},
                **{name: _statistics(getattr(counts, ours)) for name, ours in _CLOUDWATCH_LATENCIES.items()},
                "PlatformErrors": counts.platform_errors,
                "AbandonedInvocations": counts.client_gone,
            }
            for key, counts in list(self._observations.variants())
            if key[0] == account_id and endpoint_name in (None, key[1])
        )

    async def _of_queue(
        self, visible: Callable[[Sequence[Any]], bool], instances: InstanceStatuses
    ) -> Iterable[Metric]:
        now = datetime.now(UTC)
        in_service: dict[tuple[str, ...], int] = {}
        for (*endpoint, _, status), number in instances.items():
            if status is InstanceStatus.IN_SERVICE:
                in_service[tuple(endpoint)] = in_service.get(tuple(endpoint), 0) + number
        backlogs = {
            (backlog.account_id, backlog.endpoint_name): backlog
            for backlog in await self._queue.unfinished()
            if visible((backlog.account_id,))
        }
        return [
            *_gauge(
                "moorage_async_backlog_size",
                "Asynchronous invocations that wait or run.",
                _ENDPOINT,
                ((key, backlog.number) for key, backlog in backlogs.items()),
            ),
            *_gauge(
                "moorage_async_backlog_size_per_instance",
                "The same, divided by the instances in service.",
                _ENDPOINT,
                (
                    (key, backlog.number / in_service[key])
                    for key, backlog in backlogs.items()
                    if key in in_service
                ),
            ),
            *_gauge(
                "moorage_async_backlog_without_capacity",
                "1 while asynchronous invocations wait and no instance is in service.",
                _ENDPOINT,
                ((key, int(key not in in_service)) for key in backlogs),
            ),
            *_gauge(
                "moorage_async_oldest_request_age_seconds",
                "The time since the oldest of those that wait or run was accepted.",
                _ENDPOINT,
                (
                    (key, max(0.0, (now - backlog.oldest_received_time).total_seconds()))
                    for key, backlog in backlogs.items()
                ),
            ),
            *_counter(
                "moorage_async_invocations_finished",
                "Asynchronous invocations that have ended, by how they did.",
                (*_ENDPOINT, "status"),
                _named(
                    {
                        key: number
                        for key, number in self._finished().items()
                        if visible(key) and self._observations.has_endpoint(*key[:2])
                    }
                ),
            ),
        ]

    def _of_server(self) -> Iterable[Metric]:
        # The dispatcher of asynchronous invocations lives in this process, and reports as the gateways do.
        processes: list[Mapping[str, Any]] = [{"name": "controller", **process_usage()}]
        processes += [each for each in self._observations.processes() if each["name"] != "controller"]

        def of_each(member: str) -> list[tuple[tuple[str, str], float]]:
            return [
                ((process["name"], str(process["pid"])), process[member])
                for process in processes
                if member in process
            ]

        yield from _counter(
            "moorage_process_cpu_seconds", "Processor time used.", _PROCESS, of_each("cpu_seconds")
        )
        yield from _gauge(
            "moorage_process_resident_memory_bytes", "Memory now.", _PROCESS, of_each("resident_bytes")
        )
        yield from _gauge(
            "moorage_gateway_connections", "Connections of clients now.", _PROCESS, of_each("connections")
        )
        yield from _gauge(
            "moorage_gateway_event_loop_lag_seconds",
            "How much too late the event loop was in the last second, at worst.",
            _PROCESS,
            of_each("event_loop_lag_seconds"),
        )
        yield from _counter(
            "moorage_gateway_error_replies",
            "Requests that the gateways answered with an error of their own or of a model's, by its code.",
            ("code",),
            [((code,), number) for code, number in self._observations.error_replies.items()],
        )


def metrics_routes(metrics: Metrics, *, first_account_id: str) -> list[Route]:
    async def text(request: Request) -> Response:
        families = await metrics.read(_account(request, first_account_id))
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return StreamingResponse(_written(families, encode), media_type=content_type)

    async def variants(request: Request) -> Response:
        account_id = request.headers["x-moorage-account-id"]
        rows = metrics.variants(account_id, request.query_params.get("endpoint"))
        return StreamingResponse(_rows(rows), media_type="application/json")

    return [
        Route("/_moorage/metrics", text, methods=["GET"]),
        Route("/_moorage/metrics/variants", variants, methods=["GET"]),
    ]


async def _written(
    families: Iterator[Metric], encode: Callable[[CollectorRegistry], bytes]
) -> AsyncIterator[bytes]:
    """As one text, in pieces. Each is a whole text to the encoder."""
    nothing = encode(_registry([]))  # what a text ends with
    name = ""
    for family in families:
        text = encode(_registry([family])).removesuffix(nothing)
        if family.name == name:  # it goes on
            text = b"".join(line for line in text.splitlines(keepends=True) if not line.startswith(b"# "))
        name = family.name
        yield text
        await asyncio.sleep(0)
    yield nothing


async def _rows(rows: Iterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    opening = b'{"Variants": ['
    while some := list(islice(rows, _PIECE // 10)):
        yield opening + b", ".join(json.dumps(row).encode() for row in some)
        opening = b", "
        await asyncio.sleep(0)
    yield (b"" if opening == b", " else opening) + b"]}"


async def _histograms(variants: Sequence[tuple[VariantKey, InvocationCounts]]) -> int:
    """How many there are that have seen something."""
    number = 0
    for at in range(0, len(variants), _PIECE):
        some = variants[at : at + _PIECE]
        number += sum(not getattr(counts, ours).is_empty for _, counts in some for ours in _HISTOGRAMS)
        await asyncio.sleep(0)
    return number


def _of_variants(variants: Sequence[tuple[VariantKey, InvocationCounts]], detail: Detail) -> Iterator[Metric]:
    for ours, (name, help) in _COUNTERS.items():
        samples = ((key, getattr(counts, ours)) for key, counts in variants)
        if detail is not Detail.ALL and ours != "invocations":
            samples = ((key, number) for key, number in samples if number)
        yield from _counter(name, help, _VARIANT, samples)
    for ours, (name, help) in _HISTOGRAMS.items():
        yield from _histogram(name, help, ((key, getattr(counts, ours)) for key, counts in variants), detail)


def _registry(families: Sequence[Metric]) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(families))
    return registry


class _Collected:
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _account(request: Request, first_account_id: str) -> str | None:
    """Whose metrics a caller may read; None: everybody's."""
    if "x-moorage-scraper" in request.headers:
        return None
    account_id = request.headers["x-moorage-account-id"]
    return None if account_id == first_account_id else account_id


def _named(numbers: Mapping[tuple[Any, ...], float]) -> list[tuple[list[str], float]]:
    return [([str(part) for part in key], number) for key, number in numbers.items()]


def _counter(
    name: str, help: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], float]]
) -> Iterator[Metric]:
    for some in _in_pieces(samples):
        family = CounterMetricFamily(name, help, labels=labels)
        for key, number in some:
            family.add_metric(key, number)
        yield family


def _gauge(
    name: str, help: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], float]]
) -> Iterator[Metric]:
    for some in _in_pieces(samples):
        family = GaugeMetricFamily(name, help, labels=labels)
        for key, number in some:
            family.add_metric(key, number)
        yield family


def _histogram(
    name: str, help: str, samples: Iterable[tuple[VariantKey, Histogram]], detail: Detail
) -> Iterator[Metric]:
    """Without those that have seen nothing: most variants never stream."""
    seen = ((key, histogram) for key, histogram in samples if not histogram.is_empty)
    bounds = detail.value
    for some in _in_pieces(seen, 2 + len(bounds)):
        family: Any
        if detail is Detail.NONE:
            family = SummaryMetricFamily(name, help, labels=_VARIANT)
        else:
            family = HistogramMetricFamily(name, help, labels=_VARIANT)
        for key, histogram in some:
            seconds = round(histogram.seconds, 6)
            if detail is Detail.NONE:
                family.add_metric(key, histogram.count, seconds)
                continue
            below = list(accumulate(histogram.buckets))
            buckets = [(str(BOUNDS[at]), below[at]) for at in bounds]
            family.add_metric(key, [*buckets, ("+Inf", below[-1])], seconds)
        yield family


def _in_pieces(samples: Iterable[T], lines: int = 1) -> Iterator[list[T]]:
    """Of which each makes so many lines. At least one piece, that the family is there."""
    samples = iter(samples)
    size = max(1, _PIECE // lines)
    some = list(islice(samples, size))
    while True:
        yield some
        some = list(islice(samples, size))
        if not some:
            return


def _statistics(histogram: Histogram) -> dict[str, float] | None:
    """In microseconds; None if there is nothing to tell."""
    if not histogram.count:
        return None
    return {
        "SampleCount": histogram.count,
        "Sum": round(histogram.seconds * 1e6, 1),
        "Average": round(histogram.seconds / histogram.count * 1e6, 1),
        **{name: round((histogram.quantile(share) or 0.0) * 1e6, 1) for name, share in _QUANTILES.items()},
    }
