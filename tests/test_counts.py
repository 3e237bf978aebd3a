"""Histograms, and increments that are added up elsewhere."""

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.counts import BOUNDS, Histogram, InvocationCounts

SECONDS = st.floats(min_value=1e-9, max_value=10_000)


def test_bounds_grow_by_less_than_twice() -> None:
    assert all(lower < upper <= 2 * lower + 1e-12 for lower, upper in pairwise(BOUNDS))


@given(SECONDS)
def test_a_time_is_in_the_bucket_whose_bounds_it_is_between(seconds: float) -> None:
    histogram = Histogram()
    histogram.observe(seconds)
    [at] = [at for at, number in enumerate(histogram.buckets) if number]
    lower = BOUNDS[at - 1] if at else -1.0
    upper = BOUNDS[at] if at < len(BOUNDS) else math.inf
    assert lower < seconds <= upper


@given(st.lists(st.floats(min_value=1e-4, max_value=3600), min_size=1, max_size=50), st.floats(0.01, 1))
def test_quantiles_are_off_by_a_bucket_at_most(times: list[float], share: float) -> None:
    histogram = Histogram()
    for time in times:
        histogram.observe(time)
    exact = sorted(times)[math.ceil(share * len(times) - 1e-9) - 1]
    estimate = histogram.quantile(share)
    assert estimate is not None
    assert exact / 2 <= estimate <= exact * 2


def test_there_is_no_quantile_of_nothing() -> None:
    assert Histogram().quantile(0.5) is None


@given(st.lists(st.tuples(st.sampled_from(("answer", "refuse", "fail", "break", "leave", "take")), SECONDS)))
def test_increments_add_up_to_the_whole(steps: list[tuple[str, float]]) -> None:
    counted, added, whole = InvocationCounts(), InvocationCounts(), InvocationCounts()

    def pass_on() -> None:
        taken = counted.take()
        if taken is not None:
            added.add(json.loads(json.dumps(taken)))

    counted.stands_behind(2)
    whole.stands_behind(2)
    for what, seconds in steps:
        if what == "take":
            pass_on()
        for counts in (counted, whole):
            if what in ("answer", "refuse"):
                counts.answered(seconds, seconds / 2)
            if what == "refuse":
                counts.refused(400)
            elif what == "fail":
                counts.failed(by_model=False)
            elif what == "break":
                counts.first_chunk(seconds, 2 * seconds)
                counts.broke_off(by_model=True)
            elif what == "leave":
                counts.abandoned()
    pass_on()
    assert counted.invocations == 0
    assert counted.take() is None
    assert added.invocations == whole.invocations
    assert added.invocations_per_instance == pytest.approx(whole.invocations / 2)
    for name in (
        "unanswered",
        "model_4xx",
        "model_errors",
        "mid_stream_errors",
        "platform_errors",
        "client_gone",
    ):
        assert getattr(added, name) == getattr(whole, name), name
    for name in ("model_latency", "overhead_latency", "first_chunk_latency"):
        one, other = getattr(added, name), getattr(whole, name)
        assert one.buckets == other.buckets
        assert one.seconds == pytest.approx(other.seconds)
