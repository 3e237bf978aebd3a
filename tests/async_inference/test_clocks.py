"""Clocks that are set at any moment: nothing is run twice at once, nothing waits for longer than a pause."""

import asyncio
import random
import uuid
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta

import pytest

from moorage.async_inference.base import MOST_DELAY_SECONDS, Claim
from moorage.async_inference.sql import SqlQueue
from moorage.clock import SteadyClock
from moorage.storage.database import Database, open_database
from moorage.storage.lease import Contender, Lease, LeaseLost, acquire
from moorage.storage.lease_table import SqlLeaseTable
from tests.async_inference.test_outbox import notice
from tests.async_inference.test_publisher import Script, WatchedOutbox, running
from tests.async_inference.test_queue import ACCOUNT, KEY, check_counts, invocation, outcome

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
STEPS = [timedelta(seconds=60), timedelta(seconds=-60), timedelta(hours=2), timedelta(hours=-2)]


class Time:
    """What passes, and what the system's clock says of it."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.set_by = timedelta()

    def clock(self) -> SteadyClock:
        return SteadyClock(time_of_day=self.time_of_day, monotonic=lambda: self.passed)

    def time_of_day(self) -> datetime:
        return NOON + timedelta(seconds=self.passed) + self.set_by


def test_a_steady_clock_counts_what_passes() -> None:
    time = Time()
    clock = time.clock()
    time.passed += 1.5
    time.set_by += timedelta(hours=1)
    assert clock() == NOON + timedelta(seconds=1.5)
    assert clock.time_of_day() == NOON + timedelta(hours=1, seconds=1.5)


def test_a_steady_clock_goes_on_from_what_was_stored() -> None:
    time = Time()
    clock = time.clock()
    clock.not_before(NOON - timedelta(hours=1))
    assert clock() == NOON
    clock.not_before(NOON + timedelta(hours=1))
    time.passed += 1.0
    assert clock() == NOON + timedelta(hours=1, seconds=1)


class Dispatcher:
    """One that claims, in a process of its own that takes over the lease."""

    def __init__(self, database: Database, time: Time) -> None:
        self.database = database
        self.queue = SqlQueue(database, clock=time.clock())
        self.held: dict[str, Claim] = {}

    @classmethod
    async def start(cls, url: str, time: Time) -> "Dispatcher":
        def contend(database: Database) -> Awaitable[Lease]:
            me = Contender(installation="one", holder=str(uuid.uuid4()), host="localhost", pid=1)
            return acquire(
                SqlLeaseTable(database), me, lease_seconds=1e9, patient=False, clock=lambda: time.passed
            )

        made = cls(await open_database(url, take_lease=contend), time)
        await made.queue.recover()
        return made


class Dispatchers:
    """The one that leads, and the one before it, which goes on as if it did not know."""

    def __init__(self, url: str, chance: random.Random) -> None:
        self.url = url
        self.chance = chance
        self.time = Time()
        self.finished: set[str] = set()
        self.put: set[str] = set()
        self.leader: Dispatcher
        self.former: Dispatcher | None = None

    async def take_over(self) -> None:
        await self.close_former()
        if hasattr(self, "leader"):
            self.former = self.leader
        self.leader = await Dispatcher.start(self.url, self.time)

    async def close_former(self) -> None:
        if self.former is not None:
            await self.former.database.close()

    async def step(self) -> None:
        match self.chance.choice(
            ("put", "put", "claim", "claim", "end", "end", "pass", "set", "former", "die")
        ):
            case "put":
                now = self.time.time_of_day()
                given = invocation(received_time=now, expires_time=now + timedelta(days=9))
                await self.leader.queue.put(given)
                self.put.add(given.invocation_id)
            case "claim":
                await self.claim()
            case "end" if self.leader.held:
                claim = self.leader.held.pop(self.chance.choice(sorted(self.leader.held)))
                await self.end(claim)
            case "pass":
                self.time.passed += self.chance.uniform(0, 40)
            case "set":
                self.time.set_by += self.chance.choice(STEPS)
            case "die" if self.chance.random() < 0.3:
                await self.take_over()
            case "former" if self.former is not None:
                with pytest.raises(LeaseLost):
                    await self.former.queue.claim(*KEY, most=4)
                for claim in self.former.held.values():
                    with pytest.raises(LeaseLost):
                        await self.former.queue.finish(claim, outcome())
                    assert not await self.leader.queue.finish(claim, outcome()), "it has been recovered"

    async def claim(self) -> None:
        for claim in await self.leader.queue.claim(*KEY, most=self.chance.randint(1, 4)):
            id = claim.invocation.invocation_id
            assert id not in self.leader.held, "it would run twice at once"
            assert id not in self.finished
            self.leader.held[id] = claim

    async def end(self, claim: Claim) -> None:
        if self.chance.random() < 0.5:
            delay = self.chance.choice((0, 1, 30, MOST_DELAY_SECONDS))
            assert await self.leader.queue.release(claim, delay_seconds=delay)
        else:
            assert await self.leader.queue.finish(claim, outcome())
            self.finished.add(claim.invocation.invocation_id)


@pytest.mark.parametrize("seed", range(5))
async def test_nothing_runs_twice_at_once_and_nothing_is_stuck(database_url: str, seed: int) -> None:
    dispatchers = Dispatchers(database_url, random.Random(seed))
    await dispatchers.take_over()
    for _ in range(120):
        await dispatchers.step()
    await dispatchers.take_over()
    dispatchers.time.passed += MOST_DELAY_SECONDS  # no pause is longer
    held = dispatchers.leader.held
    while len(held) < len(dispatchers.put - dispatchers.finished):
        before = len(held)
        await dispatchers.claim()
        assert len(held) > before, "something cannot be claimed"
    await check_counts(dispatchers.leader.database)
    await dispatchers.close_former()
    await dispatchers.leader.database.close()


async def test_a_clock_set_back_while_nothing_runs_delays_nothing_more_than_a_pause(
    database: Database,
) -> None:
    time = Time()
    queue = SqlQueue(database, clock=time.clock())
    await queue.put(invocation())
    await queue.put(invocation())
    [claim] = await queue.claim(*KEY, most=1)
    await queue.release(claim, delay_seconds=MOST_DELAY_SECONDS)
    time.set_by -= timedelta(hours=2)
    queue = SqlQueue(database, clock=time.clock())
    await queue.recover()
    assert len(await queue.claim(*KEY, most=9)) == 1
    pause = await queue.seconds_to_claimable(*KEY)
    assert pause is not None
    assert 0 < pause <= MOST_DELAY_SECONDS
    time.passed += pause
    assert len(await queue.claim(*KEY, most=9)) == 1


async def test_a_clock_set_back_makes_no_notice_rest_longer_than_the_longest_pause(
    database: Database,
) -> None:
    outbox = WatchedOutbox(database)
    pause = outbox.backoff.longest_seconds
    await outbox.add([notice(1)], NOON + timedelta(hours=2))
    time = Time()
    clock = time.clock()
    async with running(outbox, Script(), clock=clock) as publisher:
        while clock() < NOON + timedelta(hours=2, seconds=-pause):  # it has looked at what is stored
            await asyncio.sleep(0)
        time.passed += pause
        publisher.wake()
        assert await outbox.arrived.get() == notice(1)


async def test_only_the_time_of_day_ends_a_time_to_live(database: Database) -> None:
    time = Time()
    queue = SqlQueue(database, clock=time.clock())
    await queue.put(invocation(received_time=NOON, expires_time=NOON + timedelta(hours=1)))
    [held] = await queue.claim(*KEY, most=1)
    time.set_by += timedelta(hours=2)
    assert await queue.claim_expired(most=9) == [], "what is in a container is not disturbed"
    await queue.release(held)
    [claim] = await queue.claim_expired(most=9)
    assert (claim.invocation.account_id, claim.attempt) == (ACCOUNT, 2)
