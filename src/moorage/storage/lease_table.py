"""The row of the lease in the database: single statements, each compared with what was seen before."""

from sqlalchemy import bindparam, func, select, update

from moorage.storage.database import Database
from moorage.storage.lease import Contender, LeaseRow
from moorage.storage.schema import leases

_is_ours = leases.c.name == "controller"
_read = select(leases).where(_is_ours)
_take = (
    update(leases)
    .where(
        _is_ours, leases.c.epoch == bindparam("seen_epoch"), leases.c.renewals == bindparam("seen_renewals")
    )
    .values(
        epoch=leases.c.epoch + 1,
        renewals=leases.c.renewals + 1,
        acquired_time=func.now(),
        renewed_time=func.now(),
    )
)
_held = _is_ours, leases.c.epoch == bindparam("held_epoch"), leases.c.holder == bindparam("held_by")
_renew = update(leases).where(*_held).values(renewals=leases.c.renewals + 1, renewed_time=func.now())
_release = (
    update(leases)
    .where(*_held)
    .values(renewals=leases.c.renewals + 1, installation=None, holder=None, host=None, pid=None)
)


class SqlLeaseTable:
    """Implements `moorage.storage.lease.LeaseTable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self) -> LeaseRow:
        async with self._database.unfenced() as connection:
            row = (await connection.execute(_read)).one()
        holder = None
        if row.holder is not None:
            holder = Contender(installation=row.installation, holder=row.holder, host=row.host, pid=row.pid)
        return LeaseRow(
            epoch=row.epoch,
            renewals=row.renewals,
            lease_seconds=row.lease_seconds,
            holder=holder,
            acquired_time=row.acquired_time,
        )

    async def take(self, seen: LeaseRow, me: Contender, lease_seconds: float) -> bool:
        statement = _take.values(
            installation=me.installation,
            holder=me.holder,
            host=me.host,
            pid=me.pid,
            lease_seconds=lease_seconds,
        )
        async with self._database.unfenced() as connection:
            result = await connection.execute(
                statement, {"seen_epoch": seen.epoch, "seen_renewals": seen.renewals}
            )
        return result.rowcount == 1

    async def renew(self, epoch: int, me: Contender) -> bool:
        async with self._database.unfenced() as connection:
            result = await connection.execute(_renew, {"held_epoch": epoch, "held_by": me.holder})
        return result.rowcount == 1

    async def release(self, epoch: int, me: Contender) -> None:
        async with self._database.unfenced() as connection:
            await connection.execute(_release, {"held_epoch": epoch, "held_by": me.holder})
