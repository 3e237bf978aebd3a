"""The lease by which one controller at a time acts on a database.

It is a row (`schema.leases`): who holds it, an epoch that grows with each holder, and a number that grows with each
renewal. All times are durations on the observer's own monotonic clock, so no two clocks need agree, and setting one
changes nothing. A contender takes a lease over when it has watched the row for the whole lease time and nothing has
changed; the holder acts for nine tenths of that from the moment at which it asked for its last renewal, which is
earlier than the moment at which any contender can have seen it.

That is about who acts. What is right does not depend on it: `Database.write` compares the epoch inside each
transaction, so whoever lost the lease (was paused, or cut off from the database) cannot commit anything any more.

See docs/decisions/0012-one-controller-leads.md.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import NoReturn, Protocol

from moorage.storage.failures import DatabaseUnavailable, UnusableDatabase

RENEWALS_PER_LEASE = 5
"""How often a lease is renewed within its time: four attempts may fail in a row."""

_WATCHES_PER_LEASE = 20
HOLDERS_SHARE = 0.9
"""The part of the lease time after which a holder that cannot renew stops acting: clocks do not run equally fast."""

_RETRIES_PER_RENEWAL = 4
_TELL_SECONDS = 3.0
logger = logging.getLogger(__name__)


class LeaseLost(DatabaseUnavailable):
    """Another controller has the lease: this process must stop acting, and ends."""


class LeaseUnconfirmed(DatabaseUnavailable):
    """The lease could not be renewed for its whole time: another controller may have it, or nobody."""


class LeaseHeldElsewhere(UnusableDatabase):
    """A living controller of another server has the lease; the text says which."""


# --- The rule ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One controller process. Those of one `installation` never run at the same time: whoever starts the second has
    seen the first end."""

    installation: str
    holder: str
    host: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRow:
    """What the database says. There is no holder before the first, and after one that gave the lease back."""

    epoch: int
    renewals: int
    lease_seconds: float
    holder: Contender | None
    acquired_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What has been seen of the row: this state of it from `since` to `last`, in monotonic seconds. `renewed`: the
    same holder has renewed it between two looks."""

    row: LeaseRow
    since: float
    last: float
    renewed: bool = False


class Decision(Enum):
    ACQUIRE = "acquire"
    WAIT = "wait"
    REFUSE = "refuse"
    RENEW = "renew"
    STEP_DOWN = "step down"


def watch(before: Watch | None, row: LeaseRow, now: float) -> Watch:
    """Add a look at the row. After a gap as long as the time between two renewals (the database was away, or this
    process was paused) it begins anew: a holder that was cut off as well must have its chance to renew."""
    if before is None or now - before.last > row.lease_seconds / RENEWALS_PER_LEASE:
        return Watch(row=row, since=now, last=now)
    if (row.epoch, row.renewals) == (before.row.epoch, before.row.renewals):
        return replace(before, last=now)
    renewed = row.epoch == before.row.epoch and row.holder is not None
    return Watch(row=row, since=now, last=now, renewed=renewed)


def decide(
    seen: Watch, *, me: Contender, now: float, held_epoch: int | None = None, patient: bool = False
) -> Decision:
    """What a contender that has seen this does next.

    `held_epoch` is that of the lease it holds. One that is `patient` waits for a holder that lives; any other ends.
    """
    holder = seen.row.holder
    if held_epoch is not None:
        is_mine = holder is not None and holder.holder == me.holder and seen.row.epoch == held_epoch
        return Decision.RENEW if is_mine else Decision.STEP_DOWN
    if holder is None or holder.installation == me.installation:
        return Decision.ACQUIRE
    if now - seen.since >= seen.row.lease_seconds:
        return Decision.ACQUIRE
    if seen.renewed and not patient:
        return Decision.REFUSE
    return Decision.WAIT


def describe(row: LeaseRow) -> str:
    """The holder, for people."""
    holder, since = row.holder, row.acquired_time
    if holder is None:
        return "nobody"
    since_text = (
        "an unknown time" if since is None else since.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    )
    return f"the controller on host {holder.host} with pid {holder.pid}, which has led it since {since_text}"


# --- What acts on it -----------------------------------------------------------------------------------


class LeaseTable(Protocol):
    """Where the row is. Every method raises `DatabaseUnavailable` when it cannot be reached."""

    async def read(self) -> LeaseRow: ...

    async def take(self, seen: LeaseRow, me: Contender, lease_seconds: float) -> bool:
        """Make `me` the holder with the next epoch, if the row is still as it was seen."""

    async def renew(self, epoch: int, me: Contender) -> bool:
        """False when the lease is another's, or nobody's."""

    async def release(self, epoch: int, me: Contender) -> None:
        """Give it back, if it is still held; the epoch stays used."""


class Lease:
    """The lease, held by this process with this `epoch`."""

    def __init__(
        self,
        table: LeaseTable,
        me: Contender,
        *,
        epoch: int,
        lease_seconds: float,
        confirmed_at: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.epoch = epoch
        self.keeping: asyncio.Task[NoReturn] | None = None
        self._table = table
        self._me = me
        self._lease_seconds = lease_seconds
        self._confirmed_at = confirmed_at
        self._clock = clock
        self._lost = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Lease epoch={self.epoch} lost={self._lost.is_set()}>"

    def check(self) -> None:
        """Return if this process may act.

        Raises:
            LeaseLost: another controller has the lease.
            LeaseUnconfirmed: it was not renewed in time, and another may have it.
        """
        if self._lost.is_set():
            raise LeaseLost(f"this controller led with epoch {self.epoch} and does not any more")
        unconfirmed = self._clock() - self._confirmed_at
        if unconfirmed >= self._lease_seconds * HOLDERS_SHARE:
            raise LeaseUnconfirmed(f"the lease of this controller was last renewed {unconfirmed:.1f} s ago")

    def lose(self) -> LeaseLost:
        """Note that a transaction has found another epoch; the exception to raise for it."""
        self._lost.set()
        return LeaseLost(f"this controller led with epoch {self.epoch} and does not any more")

    async def keep(self) -> NoReturn:
        """Renew the lease until it is lost. While the database is away it is tried again and again: if nobody has
        taken the lease meanwhile, this process goes on with it.

        Raises:
            LeaseLost: another controller has it; the text says which.
        """
        usual = self._lease_seconds / RENEWALS_PER_LEASE
        pause = usual
        while True:
            try:
                async with asyncio.timeout(pause):
                    await self._lost.wait()
            except TimeoutError:
                asked_at = self._clock()
            try:
                if not self._lost.is_set() and await self._table.renew(self.epoch, self._me):
                    self._confirmed_at, pause = asked_at, usual
                    continue
                row = await self._table.read()
            except DatabaseUnavailable:
                pause = usual / _RETRIES_PER_RENEWAL
                continue
            seen = Watch(row=row, since=0.0, last=0.0)
            if decide(seen, me=self._me, now=0.0, held_epoch=self.epoch) is Decision.STEP_DOWN:
                self._lost.set()
                raise LeaseLost(f"the database is led by {describe(row)}: this controller stops acting")

    def start_keeping(self) -> None:
        """Do so in the background, as the task `keeping`, until it is given back."""
        self.keeping = asyncio.create_task(self.keep(), name="keep the lease")

    async def release(self) -> None:
        """Give it back, so that the next controller need not wait."""
        if self.keeping is not None:
            self.keeping.cancel()
        if not self._lost.is_set():
            self._lost.set()
            await self._table.release(self.epoch, self._me)


async def acquire(
    table: LeaseTable,
    me: Contender,
    *,
    lease_seconds: float,
    patient: bool,
    clock: Callable[[], float] = time.monotonic,
) -> Lease:
    """Wait until this process holds the lease, saying so every few seconds. While the database is away, a `patient`
    contender waits for that too.

    Raises:
        LeaseHeldElsewhere: another server's controller holds it and lives, and this one is not patient.
        DatabaseUnavailable: likewise.
    """
    seen: Watch | None = None
    told_at = clock()
    while True:
        try:
            seen = watch(seen, await table.read(), clock())
            decision = decide(seen, me=me, now=clock(), patient=patient)
            if decision is Decision.ACQUIRE:
                asked_at = clock()
                if await table.take(seen.row, me, lease_seconds):
                    return Lease(
                        table,
                        me,
                        epoch=seen.row.epoch + 1,
                        lease_seconds=lease_seconds,
                        confirmed_at=asked_at,
                        clock=clock,
                    )
                continue
        except DatabaseUnavailable:
            if not patient:
                raise
            decision = Decision.WAIT
        if seen is not None and decision is Decision.REFUSE:
            raise LeaseHeldElsewhere(
                f"The database is in use by another Moorage: {describe(seen.row)}. Stop that one, or give this one a "
                "database of its own with --database-url."
            )
        if seen is not None and clock() - told_at >= _TELL_SECONDS:
            told_at = clock()
            logger.warning(
                "waiting for the database, which is led by %s; its lease ends when it is not renewed for %g s",
                describe(seen.row),
                seen.row.lease_seconds,
            )
        await asyncio.sleep((lease_seconds if seen is None else seen.row.lease_seconds) / _WATCHES_PER_LEASE)
