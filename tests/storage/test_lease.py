"""The lease: the rule by itself, several contenders with clocks of their own, and the row in the database."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from moorage.storage.database import Database, SchemaError, open_database
from moorage.storage.failures import DatabaseUnavailable
from moorage.storage.lease import (
    HOLDERS_SHARE,
    RENEWALS_PER_LEASE,
    Contender,
    Decision,
    Lease,
    LeaseHeldElsewhere,
    LeaseLost,
    LeaseRow,
    LeaseUnconfirmed,
    Watch,
    acquire,
    decide,
    watch,
)
from moorage.storage.lease_table import SqlLeaseTable

LEASE = 10.0
ME = Contender(installation="mine", holder="me", host="here", pid=1)
BEFORE_ME = replace(ME, holder="before me", pid=2)
OTHER = Contender(installation="another's", holder="other", host="there", pid=3)


def row(holder: Contender | None, *, epoch: int = 7, renewals: int = 70) -> LeaseRow:
    return LeaseRow(epoch=epoch, renewals=renewals, lease_seconds=LEASE, holder=holder, acquired_time=None)


# --- The rule ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("holder", "unchanged_seconds", "renewed", "held_epoch", "patient", "expected"),
    [
        (None, 0.0, False, None, False, Decision.ACQUIRE),
        (None, 0.0, False, None, True, Decision.ACQUIRE),
        (BEFORE_ME, 0.0, False, None, False, Decision.ACQUIRE),
        (BEFORE_ME, 0.0, True, None, False, Decision.ACQUIRE),
        (OTHER, 0.0, False, None, False, Decision.WAIT),
        (OTHER, 9.9, False, None, False, Decision.WAIT),
        (OTHER, 10.0, False, None, False, Decision.ACQUIRE),
        (OTHER, 10.0, True, None, True, Decision.ACQUIRE),
        (OTHER, 0.0, True, None, False, Decision.REFUSE),
        (OTHER, 0.0, True, None, True, Decision.WAIT),
        (ME, 0.0, False, 7, False, Decision.RENEW),
        (ME, 99.0, False, 7, False, Decision.RENEW),
        (ME, 0.0, False, 6, False, Decision.STEP_DOWN),
        (BEFORE_ME, 0.0, False, 7, False, Decision.STEP_DOWN),
        (OTHER, 99.0, False, 7, False, Decision.STEP_DOWN),
        (None, 0.0, False, 7, False, Decision.STEP_DOWN),
    ],
)
def test_decisions(
    holder: Contender | None,
    unchanged_seconds: float,
    renewed: bool,
    held_epoch: int | None,
    patient: bool,
    expected: Decision,
) -> None:
    seen = Watch(row=row(holder), since=100.0, last=100.0 + unchanged_seconds, renewed=renewed)
    now = 100.0 + unchanged_seconds
    assert decide(seen, me=ME, now=now, held_epoch=held_epoch, patient=patient) is expected


looks = st.lists(
    st.tuples(st.floats(0.01, 15.0), st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40
)


@given(looks)
def test_a_lease_is_taken_only_after_a_whole_lease_time_in_which_it_was_looked_at_and_did_not_change(
    looks: list[tuple[float, int, int]],
) -> None:
    now, state, seen = 0.0, row(OTHER), None
    changed_at = 0.0
    looked_at: list[float] = []
    for pause, renewals, epochs in looks:
        now += pause
        if renewals or epochs:
            changed_at = now
            state = replace(state, renewals=state.renewals + renewals, epoch=state.epoch + epochs)
        seen = watch(seen, state, now)
        looked_at.append(now)
        if decide(seen, me=ME, now=now, patient=True) is Decision.ACQUIRE:
            assert now - changed_at >= LEASE - 1e-6
            recent = [pair for pair in pairwise(looked_at) if pair[1] > now - LEASE]
            assert all(after - before <= LEASE / RENEWALS_PER_LEASE for before, after in recent)


@given(looks)
def test_a_contender_gives_up_only_after_it_has_seen_the_holder_renew(
    looks: list[tuple[float, int, int]],
) -> None:
    now, state, seen = 0.0, row(OTHER), None
    renewed = False
    for pause, renewals, _ in looks:
        now += pause
        state = replace(state, renewals=state.renewals + renewals)
        renewed = renewed or (bool(renewals) and seen is not None)
        seen = watch(seen, state, now)
        assert renewed or decide(seen, me=ME, now=now) is not Decision.REFUSE


# --- Several contenders --------------------------------------------------------------------------------


@dataclass
class World:
    """One row, and whether it can be reached. Time is virtual; every process has a clock with a start and a rate of
    its own."""

    now: float = 0.0
    state: LeaseRow = field(default_factory=lambda: row(None, epoch=0, renewals=0))
    away: bool = False
    holders: dict[int, str] = field(default_factory=dict)
    """Who acted in each epoch."""
    acted: list[int] = field(default_factory=list)


class Process:
    """A controller as `acquire` and `Lease.keep` drive it: looks, asks the rule, and does what it says."""

    def __init__(self, world: World, number: int, rng: random.Random) -> None:
        self.world = world
        self.number = number
        self.rng = rng
        self.rate = rng.uniform(0.99, 1.01)
        self.offset = rng.uniform(-1e6, 1e6)
        self.paused_until = 0.0
        self.lives = 0
        self.restart()

    def restart(self) -> None:
        self.lives += 1
        self.me = Contender(
            installation=f"machine {self.number}", holder=f"{self.number}/{self.lives}", host="", pid=0
        )
        self.seen: Watch | None = None
        self.epoch: int | None = None
        self.confirmed_at = 0.0
        self.wake_at = self.world.now

    def clock(self) -> float:
        return self.offset + self.world.now * self.rate

    def step(self) -> None:
        world = self.world
        pause = LEASE / (RENEWALS_PER_LEASE if self.epoch is not None else 20)
        self.wake_at = world.now + pause * self.rng.uniform(0.9, 1.5)
        if world.away:
            return
        now = self.clock()
        self.seen = watch(self.seen, world.state, now)
        decision = decide(self.seen, me=self.me, now=now, held_epoch=self.epoch, patient=True)
        seen_row = self.seen.row
        if decision is Decision.STEP_DOWN:
            self.restart()
        elif decision is Decision.RENEW:
            world.state = replace(world.state, renewals=world.state.renewals + 1)
            self.confirmed_at = now
        elif decision is Decision.ACQUIRE and world.state == seen_row:
            world.state = replace(
                world.state, epoch=seen_row.epoch + 1, renewals=seen_row.renewals + 1, holder=self.me
            )
            self.epoch, self.confirmed_at = world.state.epoch, now

    def believes(self) -> bool:
        """What `Lease.check` says."""
        return self.epoch is not None and self.clock() - self.confirmed_at < LEASE * HOLDERS_SHARE

    def act(self) -> None:
        """What `Database.write` does: nothing when the lease is not confirmed, else with the epoch compared."""
        world = self.world
        if not self.believes() or world.away:
            return
        if world.state.epoch == self.epoch:
            assert self.epoch is not None
            assert world.holders.setdefault(self.epoch, self.me.holder) == self.me.holder
            assert not world.acted or world.acted[-1] <= self.epoch
            world.acted.append(self.epoch)


@pytest.mark.parametrize("seed", range(60))
def test_no_two_act_in_one_epoch_and_someone_always_leads_in_the_end(seed: int) -> None:
    """Processes are killed and paused for longer than the lease; the database goes away; clocks run differently, and
    in half of the runs they are set: only then may two believe that they lead, of which one cannot write."""
    rng = random.Random(seed)
    clocks_are_set = bool(seed % 2)
    world = World()
    processes = [Process(world, number, rng) for number in range(rng.randint(2, 4))]
    for _ in range(3000):
        world.now += rng.expovariate(10.0)
        fault = rng.random()
        victim = rng.choice(processes)
        if fault < 0.002:
            victim.paused_until = world.now + rng.uniform(0.0, 4 * LEASE)
        elif fault < 0.004:
            victim.restart()
        elif fault < 0.005 and clocks_are_set:
            victim.offset += rng.uniform(
                -100.0, 100.0
            )  # a pause of its whole machine, or a fault of its clock
        elif fault < 0.008:
            world.away = not world.away
        for process in processes:
            if process.paused_until <= world.now:
                if process.wake_at <= world.now:
                    process.step()
                process.act()
        assert clocks_are_set or sum(process.believes() for process in processes) <= 1
    world.away = False
    end = world.now + 5 * LEASE
    before = len(world.acted)
    while world.now < end:
        world.now += 0.1
        for process in processes:
            if process.wake_at <= world.now:
                process.step()
            process.act()
    assert len(world.acted) > before, "nobody leads"
    assert world.acted == sorted(world.acted), "an older epoch acted after a newer one"


# --- The row in the database ---------------------------------------------------------------------------


@pytest.fixture
async def databases(database_url: str) -> AsyncIterator[tuple[Database, Database]]:
    first, second = await open_database(database_url), await open_database(database_url)
    yield first, second
    await first.close()
    await second.close()


async def lead(
    database: Database, me: Contender, *, lease_seconds: float = LEASE, patient: bool = False
) -> Lease:
    lease = await acquire(SqlLeaseTable(database), me, lease_seconds=lease_seconds, patient=patient)
    database.lease = lease
    return lease


async def change(database: Database, value: str) -> None:
    async with database.write() as connection:
        await connection.execute(text("UPDATE secrets SET value = :value"), {"value": value})


async def value(database: Database) -> str:
    async with database.read() as connection:
        return str(await connection.scalar(text("SELECT value FROM secrets")))


async def test_epochs_grow_and_the_next_one_need_not_wait_for_a_lease_that_was_given_back(
    databases: tuple[Database, Database],
) -> None:
    first, second = databases
    one = await lead(first, ME)
    await one.release()
    two = await lead(second, OTHER)
    assert (one.epoch, two.epoch) == (1, 2)
    with pytest.raises(LeaseLost):
        await change(first, "late")


async def test_a_controller_of_the_same_installation_takes_over_at_once(
    databases: tuple[Database, Database],
) -> None:
    first, second = databases
    await lead(first, BEFORE_ME, lease_seconds=600.0)
    lease = await lead(second, ME, lease_seconds=600.0)
    assert lease.epoch == 2


async def test_a_second_controller_is_refused_by_one_that_lives(databases: tuple[Database, Database]) -> None:
    first, second = databases
    lease = await lead(first, OTHER, lease_seconds=1.0)
    keeping = asyncio.create_task(lease.keep())
    with pytest.raises(LeaseHeldElsewhere, match=r"host there with pid 3, .* since 20\d\d-.* UTC"):
        await lead(second, ME, lease_seconds=1.0)
    keeping.cancel()


async def test_a_second_controller_takes_over_from_one_that_is_dead(
    databases: tuple[Database, Database],
) -> None:
    first, second = databases
    await lead(first, OTHER, lease_seconds=1.0)
    assert (await lead(second, ME)).epoch == 2


async def test_who_lost_the_lease_writes_nothing_and_is_told(databases: tuple[Database, Database]) -> None:
    first, second = databases
    lost = await lead(first, OTHER, lease_seconds=1.0)
    await change(first, "first")
    await lead(second, ME, patient=True)
    await change(second, "second")
    lost._confirmed_at = lost._clock()  # as if it had been asleep all the time and knew nothing of it
    with pytest.raises(LeaseLost):
        await change(first, "first again")
    assert await value(second) == "second"
    with pytest.raises(LeaseLost, match="led by the controller on host here with pid 1"):
        await lost.keep()


async def test_who_could_not_renew_its_lease_writes_nothing_until_it_can(
    databases: tuple[Database, Database],
) -> None:
    first, _ = databases
    now = 0.0
    table = SqlLeaseTable(first)
    lease = await acquire(table, ME, lease_seconds=LEASE, patient=False, clock=lambda: now)
    first.lease = lease
    now = LEASE
    with pytest.raises(LeaseUnconfirmed):
        await change(first, "too late")
    assert await table.renew(lease.epoch, ME), "nobody has taken it"


async def test_a_transaction_that_has_begun_ends_before_the_lease_changes_hands(postgres_url: str) -> None:
    first, second = await open_database(postgres_url), await open_database(postgres_url)
    lease = await lead(first, BEFORE_ME)
    async with first.write() as connection:
        taking = asyncio.create_task(lead(second, ME))
        assert await SqlLeaseTable(first).renew(lease.epoch, BEFORE_ME), "renewals do not wait"
        await asyncio.wait({taking}, timeout=0.2)
        assert not taking.done()
        await connection.execute(text("UPDATE secrets SET value = 'first'"))
    await taking
    assert await value(second) == "first"
    await first.close()
    await second.close()


async def test_a_newer_version_leaves_the_schema_alone_while_an_older_one_leads(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await open_database(database_url)
    lease = await lead(old, OTHER, lease_seconds=1.0)
    keeping = asyncio.create_task(lease.keep())
    monkeypatch.setattr("moorage.storage.migrations.HEAD", "9998")
    with pytest.raises(LeaseHeldElsewhere):
        await open_database(database_url, take_lease=lambda database: lead(database, ME))
    keeping.cancel()
    await old.close()


async def test_a_newer_schema_is_refused_without_taking_the_lease(database_url: str) -> None:
    database = await open_database(database_url)
    async with database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaError, match="newer than this one"):
        await open_database(database_url, take_lease=lambda database: lead(database, ME))
    assert (await SqlLeaseTable(database).read()).holder is None
    await database.close()


class FlakyTable:
    """A table that cannot be reached for a while."""

    def __init__(self, table: SqlLeaseTable) -> None:
        self.take, self.release = table.take, table.release
        self._table = table
        self.failures = 0
        self.renewed = asyncio.Event()

    async def read(self) -> LeaseRow:
        self._fail()
        return await self._table.read()

    async def renew(self, epoch: int, me: Contender) -> bool:
        self._fail()
        self.renewed.set()
        return await self._table.renew(epoch, me)

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise DatabaseUnavailable("away")


async def test_a_holder_goes_on_when_the_database_comes_back_and_nobody_has_the_lease(
    databases: tuple[Database, Database],
) -> None:
    first, _ = databases
    table = FlakyTable(SqlLeaseTable(first))
    lease = await acquire(table, ME, lease_seconds=1.0, patient=False)
    first.lease = lease
    table.failures = 4
    keeping = asyncio.create_task(lease.keep())
    await table.renewed.wait()
    await change(first, "still here")
    keeping.cancel()


async def test_a_patient_contender_waits_for_the_database_too(databases: tuple[Database, Database]) -> None:
    table = FlakyTable(SqlLeaseTable(databases[0]))
    table.failures = 2
    assert (await acquire(table, ME, lease_seconds=1.0, patient=True)).epoch == 1
    table.failures = 1
    with pytest.raises(DatabaseUnavailable):
        await acquire(table, ME, lease_seconds=1.0, patient=False)
