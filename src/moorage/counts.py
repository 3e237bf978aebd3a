"""What is counted of the invocations of a production variant, as cheaply as can be.

Whoever runs invocations counts them here, in plain attributes of an object that hangs on the variant's route: no
locks, no lookups, no names. Once a second `take` gives away what has come together since, as an increment for whoever
adds them up (`add`). An invocation is counted at its end, exactly once: when it was `answered`, when it `failed` or
`broke_off`, or when it was `abandoned`. What each number means to a user, docs/metrics.md says.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, Final

BOUNDS: Final[list[float]] = [
    float(f"{step}e{power}")
    for power, steps in (
        (-5, (3.2, 5.6)),
        *((power, (1.0, 1.8, 3.2, 5.6)) for power in range(-4, 2)),
        (2, (1.0, 1.8, 3.2, 6.0)),
        (3, (1.0, 1.8, 3.6)),
    )
    for step in steps
]
"""The upper bounds of a histogram's buckets in seconds, from 32 microseconds to an hour; a last one has no bound."""

_PLAIN: Final = (
    "unanswered",
    "model_4xx",
    "model_5xx",
    "model_errors",
    "mid_stream_errors",
    "platform_errors",
    "client_gone",
)
_HISTOGRAMS: Final = (
    "model_latency",
    "overhead_latency",
    "first_chunk_latency",
    "first_chunk_model_latency",
    "first_chunk_overhead_latency",
)


class Histogram:
    """How often a time fell between two bounds, and the sum of all."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        self.seconds += seconds
        self.buckets[bisect_left(BOUNDS, seconds)] += 1

    @property
    def count(self) -> int:
        return sum(self.buckets)

    @property
    def is_empty(self) -> bool:
        """Whether `count` is 0, which takes less time to find out."""
        return not self.seconds and not any(self.buckets)

    def quantile(self, share: float) -> float | None:
        """An estimate of the time within which this share of them were: within the bucket, by a straight line."""
        wanted = share * self.count
        if not wanted:
            return None
        below, lower = 0, 0.0
        for bound, number in zip(BOUNDS, self.buckets, strict=False):
            if number and below + number >= wanted:
                return lower + (bound - lower) * (wanted - below) / number
            below, lower = below + number, bound
        return BOUNDS[-1]

    def take(self) -> list[Any] | None:
        """`[seconds, [bucket, number]…]` since the last time; None if there was nothing."""
        if self.is_empty:
            return None
        taken: list[Any] = [self.seconds, *([at, number] for at, number in enumerate(self.buckets) if number)]
        self.seconds = 0.0
        self.buckets = [0] * len(self.buckets)
        return taken

    def add(self, taken: Sequence[Any]) -> None:
        seconds, *buckets = taken
        self.seconds += seconds
        for at, number in buckets:
            self.buckets[at] += number


class InvocationCounts:
    """The counts of one variant."""

    __slots__ = (
        "_folded",
        "_instances",
        "client_gone",
        "first_chunk_latency",
        "first_chunk_model_latency",
        "first_chunk_overhead_latency",
        "invocations_per_instance",
        "mid_stream_errors",
        "model_4xx",
        "model_5xx",
        "model_errors",
        "model_latency",
        "overhead_latency",
        "platform_errors",
        "unanswered",
    )

    def __init__(self) -> None:
        self.model_4xx = 0
        self.model_5xx = 0
        self.model_errors = 0
        """Of all: the model answered, but not with 2xx, or it did not answer (in time, in full, in HTTP)."""
        self.mid_stream_errors = 0
        """Failures of streams that had begun."""
        self.platform_errors = 0
        """It reached no model, or its reply met a fault of ours."""
        self.client_gone = 0
        """The client had left before it had its reply."""
        self.unanswered = 0
        """All that were not `answered`."""
        self.model_latency = Histogram()
        self.overhead_latency = Histogram()
        self.first_chunk_latency = Histogram()
        self.first_chunk_model_latency = Histogram()
        self.first_chunk_overhead_latency = Histogram()
        self.invocations_per_instance = 0.0
        self._instances = 0
        self._folded = 0  # how many of the invocations are in `invocations_per_instance`

    @property
    def invocations(self) -> int:
        """All that have ended."""
        return self.model_latency.count + self.unanswered

    def answered(self, model_seconds: float, overhead_seconds: float) -> None:
        """The model has answered in full, and the client has been given that, be it an error."""
        histogram = self.model_latency
        histogram.seconds += model_seconds
        histogram.buckets[bisect_left(BOUNDS, model_seconds)] += 1
        histogram = self.overhead_latency
        histogram.seconds += overhead_seconds
        histogram.buckets[bisect_left(BOUNDS, overhead_seconds)] += 1

    def refused(self, status: int) -> None:
        """The model's answer is no success; it is `answered` all the same."""
        self.model_errors += 1
        if 400 <= status < 500:
            self.model_4xx += 1
        elif status >= 500:
            self.model_5xx += 1

    def failed(self, *, by_model: bool) -> None:
        """There was no answer in full: by a fault of the model, or of the platform."""
        self.unanswered += 1
        if by_model:
            self.model_errors += 1
        else:
            self.platform_errors += 1

    def broke_off(self, *, by_model: bool) -> None:
        """The same, of a response stream that had begun."""
        self.failed(by_model=by_model)
        self.mid_stream_errors += 1

    def first_chunk(self, model_seconds: float, seconds: float) -> None:
        """The first chunk of a response stream came from the model, and had been passed on, after these times."""
        self.first_chunk_latency.observe(seconds)
        self.first_chunk_model_latency.observe(model_seconds)
        self.first_chunk_overhead_latency.observe(seconds - model_seconds)

    def abandoned(self) -> None:
        """The client left before it had its reply."""
        self.unanswered += 1
        self.client_gone += 1

    def stands_behind(self, instances: int) -> None:
        """How many instances take the invocations from now on."""
        if instances != self._instances:
            self._fold()
            self._instances = instances

    def take(self) -> dict[str, Any] | None:
        """What was counted since the last time, for `add`; None if that is nothing."""
        if not (self.unanswered or self.model_latency.seconds or self.first_chunk_latency.seconds):
            return None  # soon seen: there may be ten thousand of these
        self._fold()
        self._folded = 0
        taken: dict[str, Any] = {"invocations_per_instance": self.invocations_per_instance}
        self.invocations_per_instance = 0.0
        for name in _PLAIN:
            number = getattr(self, name)
            if number:
                taken[name] = number
                setattr(self, name, 0)
        for name in _HISTOGRAMS:
            histogram = getattr(self, name).take()
            if histogram is not None:
                taken[name] = histogram
        return taken

    def add(self, taken: Mapping[str, Any]) -> None:
        self.invocations_per_instance += taken["invocations_per_instance"]
        for name in _PLAIN:
            setattr(self, name, getattr(self, name) + taken.get(name, 0))
        for name in _HISTOGRAMS:
            if name in taken:
                getattr(self, name).add(taken[name])

    def _fold(self) -> None:
        """Each invocation adds its share of an instance, by the number of instances at its time."""
        if self._instances:
            self.invocations_per_instance += (self.invocations - self._folded) / self._instances
        self._folded = self.invocations
