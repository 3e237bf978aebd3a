"""The pace of a purge, and the bounds of what waits for a commit."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.async_inference.base import QueueOverloaded
from moorage.async_inference.group_commit import GroupCommit
from moorage.async_inference.purge import Pace, next_pace

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("pace", "seconds", "expected"),
    [
        (Pace(100), 0.01, Pace(100, 0.03)),
        (Pace(100), 0.008, Pace(125, 0.024)),
        (Pace(100), 0.001, Pace(200, 0.003)),
        (Pace(100), 0.0, Pace(200, 0.0)),
        (Pace(100), 0.125, Pace(50, 0.375)),
        (Pace(20), 5.0, Pace(20, 1.0)),
        (Pace(1000), 0.001, Pace(1000, 0.003)),
    ],
)
def test_the_pace_follows_the_time_that_a_transaction_took(
    pace: Pace, seconds: float, expected: Pace
) -> None:
    assert next_pace(pace, seconds) == expected


@given(st.floats(1e-6, 1e-3), st.floats(0, 0.008))
def test_transactions_come_to_take_ten_milliseconds(per_row: float, per_commit: float) -> None:
    """Or as long as the fewest rows take."""
    pace = Pace()
    for _ in range(30):
        pace = next_pace(pace, per_commit + pace.most * per_row)
    seconds = per_commit + pace.most * per_row
    assert seconds <= max(0.011, per_commit + 20 * per_row)


async def test_what_waits_for_a_commit_is_bounded_by_its_bytes() -> None:
    go, batches = asyncio.Event(), []

    async def commit(items: Sequence[bytes]) -> Sequence[int]:
        batches.append(len(items))
        await go.wait()
        return [len(item) for item in items]

    group: GroupCommit[bytes, int] = GroupCommit(commit, size=len)
    tasks = [asyncio.create_task(group(bytes(MIB))) for _ in range(64)]
    while not batches:
        await asyncio.sleep(0)
    tasks += [asyncio.create_task(group(bytes(MIB))) for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(QueueOverloaded, match="64 wait to be stored"):
        await group(bytes(MIB))
    go.set()
    assert await asyncio.gather(*tasks) == [MIB] * 68
    assert max(batches) == 4, "no batch has more than 4 MiB"
    assert await group(bytes(65 * MIB)) == 65 * MIB, "one alone is always taken"
    assert await group(b"") == 0


async def test_a_batch_has_256_items_at_most() -> None:
    batches = []

    async def commit(items: Sequence[int]) -> Sequence[int]:
        batches.append(len(items))
        return items

    group: GroupCommit[int, int] = GroupCommit(commit)
    assert await asyncio.gather(*(group(number) for number in range(600))) == list(range(600))
    assert batches == [256, 256, 88]
