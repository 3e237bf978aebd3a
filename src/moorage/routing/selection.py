"""Where an invocation goes: variant, then instance. Decisions only; nothing here waits.

Choosing and reserving are one step: `reserve` returns an instance whose count already includes the caller, so two
invocations deciding at the same moment see each other. Whoever reserved must release, exactly once
(`RoutingTable.release`).
"""

import random
from collections.abc import Collection, Sequence

from moorage.errors import ValidationError
from moorage.routing.table import EndpointRoute, Instance, VariantRoute

_SCAN_AT_MOST = 8
_SAMPLE = 4
_LOOK_FURTHER = 64
"""How many of many instances are looked at before all are taken to be full."""


def choose_variant(route: EndpointRoute, target_variant: str | None) -> VariantRoute:
    """The variant that `TargetVariant` names, else one by weight (share = weight / sum of weights).

    `TargetVariant` overrides the weights, weight 0 included. When every weight is 0 all are equal.

    Raises:
        ValidationError: the endpoint has no such variant.
    """
    if target_variant is not None:
        variant = route.by_name.get(target_variant)
        if variant is None:
            known = ", ".join(route.by_name)
            raise ValidationError(
                f"Variant {target_variant} not found for endpoint {route.name} of account "
                f"{route.account_id}. Its production variants are: {known}.",
                ErrorCode="TARGET_VARIANT_NOT_FOUND",
            )
        return variant
    variants = route.variants
    if len(variants) == 1:
        return variants[0]
    if route.total_weight <= 0:
        return random.choice(variants)
    point = random.random() * route.total_weight
    for variant in variants:
        point -= variant.weight
        if point < 0:
            return variant
    return next(variant for variant in reversed(variants) if variant.weight > 0)


def reserve(variant: VariantRoute, *, without: Collection[Instance] = ()) -> Instance | None:
    """The instance with the least outstanding invocations, reserved; None if there is none, or none with room
    for another.

    Exact up to 8 instances; above that the best of 4 drawn by chance, which is O(1) and close to it. Ties are
    broken by chance. `without` are instances already found unreachable by this invocation; with the time that took,
    others may have retired.
    """
    instances = variant.instances
    if without:
        instances = tuple(each for each in instances if each not in without and not each.retired)
    if not instances:
        return None
    chosen = instances[0] if len(instances) == 1 else _least_busy(instances)
    if chosen.outstanding >= variant.max_concurrency:
        found = _with_room(instances, variant.max_concurrency)
        if found is None:
            return None
        chosen = found
    chosen.outstanding += 1
    return chosen


def _least_busy(instances: Sequence[Instance]) -> Instance:
    """`random.sample` would do as well, and take ten times as long."""
    count = len(instances)
    at = int(random.random() * count)
    chosen = instances[at]
    if count <= _SCAN_AT_MOST:
        for _ in range(count - 1):
            at = at + 1 if at + 1 < count else 0
            instance = instances[at]
            if instance.outstanding < chosen.outstanding:
                chosen = instance
    else:
        for _ in range(_SAMPLE - 1):
            instance = instances[int(random.random() * count)]
            if instance.outstanding < chosen.outstanding:
                chosen = instance
    return chosen


def _with_room(instances: Sequence[Instance], limit: int) -> Instance | None:
    """One of those that the sample missed: many may be stuck while some have room."""
    count = len(instances)
    if count <= _SCAN_AT_MOST:
        return None
    start = random.randrange(count)
    for offset in range(min(count, _LOOK_FURTHER)):
        instance = instances[(start + offset) % count]
        if instance.outstanding < limit:
            return instance
    return None


def _outstanding(instance: Instance) -> int:
    return instance.outstanding


def room(route: EndpointRoute, limit: int) -> int:
    """How many more invocations the endpoint's instances take, at `limit` an instance."""
    return sum(
        max(0, limit - instance.outstanding) for variant in route.variants for instance in variant.instances
    )


def reserve_within(route: EndpointRoute, limit: int) -> tuple[VariantRoute, Instance] | None:
    """A variant by weight among those with an instance below `limit`, and its least busy instance, reserved."""
    free = [
        variant
        for variant in route.variants
        if any(instance.outstanding < limit for instance in variant.instances)
    ]
    if not free:
        return None
    weights = [variant.weight for variant in free]
    variant = random.choices(free, weights if sum(weights) > 0 else None)[0]
    instance = min(variant.instances, key=_outstanding)
    instance.outstanding += 1
    return variant, instance
