"""Which variant and which instance."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.errors import ValidationError
from moorage.routing.selection import choose_variant, reserve
from moorage.routing.table import EndpointRoute, Instance, VariantRoute

DRAWS = 4000


def instances(*outstanding: int) -> tuple[Instance, ...]:
    return tuple(
        Instance(f"i-{number}", "h", number, 1, outstanding=count) for number, count in enumerate(outstanding)
    )


def variant(name: str = "v", weight: float = 1.0, *outstanding: int) -> VariantRoute:
    return VariantRoute(
        name=name, weight=weight, container_hostname="primary", instances=instances(*outstanding)
    )


def limited(limit: int, *outstanding: int) -> VariantRoute:
    return replace(variant("v", 1, *outstanding), max_concurrency=limit)


def route(*variants: VariantRoute) -> EndpointRoute:
    return EndpointRoute(account_id="1", name="e", region="r", variants=variants)


def shares(chosen: EndpointRoute) -> dict[str, float]:
    counts = Counter(choose_variant(chosen, None).name for _ in range(DRAWS))
    return {name: count / DRAWS for name, count in counts.items()}


def test_weights_divide_the_traffic() -> None:
    found = shares(route(variant("a", 3), variant("b", 1), variant("c", 0)))
    assert set(found) == {"a", "b"}
    assert found["a"] == pytest.approx(0.75, abs=0.05)


def test_all_weights_zero_are_equal() -> None:
    found = shares(route(variant("a", 0), variant("b", 0)))
    assert found["a"] == pytest.approx(0.5, abs=0.06)


def test_a_lone_variant_gets_everything_whatever_its_weight() -> None:
    assert choose_variant(route(variant("a", 0)), None).name == "a"


def test_target_variant_overrides_weights() -> None:
    both = route(variant("a", 1), variant("b", 0))
    assert choose_variant(both, "b").name == "b"
    with pytest.raises(ValidationError, match=r"Variant c not found for endpoint e of account 1.*: a, b"):
        choose_variant(both, "c")


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=6))
def test_some_variant_is_always_chosen_and_none_of_weight_zero(weights: list[float]) -> None:
    both = route(*(variant(str(number), weight) for number, weight in enumerate(weights)))
    for _ in range(20):
        chosen = choose_variant(both, None)
        assert chosen.weight > 0 or sum(weights) == 0 or len(weights) == 1


def test_the_least_busy_instance_is_reserved() -> None:
    chosen = variant("v", 1, 3, 1, 2, 5)
    assert [reserve(chosen) for _ in range(1)] == [chosen.instances[1]]
    assert chosen.instances[1].outstanding == 2


def test_reservations_spread_evenly() -> None:
    for count in (2, 8):
        chosen = variant("v", 1, *[0] * count)
        for _ in range(count * 5):
            assert reserve(chosen)
        assert {instance.outstanding for instance in chosen.instances} == {5}


def test_many_instances_are_sampled_and_stay_close() -> None:
    chosen = variant("v", 1, *[0] * 100)
    for _ in range(2000):
        assert reserve(chosen)
    assert max(instance.outstanding for instance in chosen.instances) <= 24  # 20 would be perfect


def test_ties_are_broken_by_chance() -> None:
    first = Counter(reserve(variant("v", 1, 0, 0)).instance_id for _ in range(400))  # type: ignore[union-attr]
    assert min(first.values()) > 100


@pytest.mark.parametrize("count", [1, 2, 8, 9, 100])
def test_no_instance_gets_more_than_it_takes(count: int) -> None:
    chosen = limited(3, *[0] * count)
    assert all(reserve(chosen) for _ in range(2 * count))
    while reserve(chosen):
        pass
    assert max(instance.outstanding for instance in chosen.instances) == 3
    assert count > 64 or {instance.outstanding for instance in chosen.instances} == {3}


def test_room_is_found_where_the_sample_misses_it() -> None:
    for _ in range(50):
        chosen = limited(3, *[3] * 59, 2)
        assert reserve(chosen) is chosen.instances[59]


def test_what_was_found_unreachable_or_has_retired_is_passed_over() -> None:
    chosen = variant("v", 1, 0, 5, 9)
    first, second, third = chosen.instances
    assert reserve(chosen, without=(first,)) is second
    second.retired = True
    assert reserve(chosen, without=(first,)) is third
    assert reserve(chosen, without=(first, third)) is None
    assert reserve(variant("v", 1)) is None
