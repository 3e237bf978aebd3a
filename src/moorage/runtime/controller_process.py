"""The controller process: `python -m moorage.runtime.controller_process`, settings in `MOORAGE_SETTINGS`.

The database is opened before the rest is imported, which takes as long: a start that cannot succeed ends sooner.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
import uuid
from functools import partial

import uvloop

from moorage.config import Settings
from moorage.runtime import last_words, logs
from moorage.storage.database import Database, open_database
from moorage.storage.failures import DatabaseUnavailable, UnusableDatabase, lasting
from moorage.storage.lease import Contender, Lease, acquire
from moorage.storage.lease_table import SqlLeaseTable
from moorage.storage.new_database import make_apart
from moorage.storage.secret_key_check import checked_sealer

_TRY_AGAIN_SECONDS = 0.25
_TELL_EVERY_SECONDS = 3.0
logger = logging.getLogger(__name__)


async def run(settings: Settings, url: str) -> None:
    """Lead the database, until SIGTERM.

    Raises:
        UnusableDatabase: it cannot be used as it is.
        LeaseLost: another controller leads it by now.
    """
    database = await _open(settings)
    try:
        sealer = await checked_sealer(database, secret_key=settings.secret_key, path=settings.secret_key_file)
        from moorage.runtime.controller import serve

        await serve(settings, url, database, sealer)
    finally:
        await database.close()


async def _open(settings: Settings) -> Database:
    """Waits for a database that does not answer yet, and says so every few seconds."""
    began = time.monotonic()
    told_at = began - _TELL_EVERY_SECONDS
    while True:
        try:
            return await open_database(
                settings.effective_database_url,
                timeout_seconds=settings.database_timeout_seconds,
                take_lease=partial(_lead, settings=settings),
            )
        except DatabaseUnavailable as error:
            now = time.monotonic()
            if now - told_at >= _TELL_EVERY_SECONDS:
                told_at = now
                logger.warning("%s, which is waited for (%.0f s so far)", error, now - began)
            await asyncio.sleep(_TRY_AGAIN_SECONDS)


async def _lead(database: Database, settings: Settings) -> Lease:
    """Wait for the lease. Once the server has been ready, endpoints are in service here, and it is waited for even
    if another controller has it."""
    me = Contender(
        installation=os.environ["MOORAGE_INSTALLATION"],
        holder=str(uuid.uuid4()),
        host=socket.gethostname(),
        pid=os.getpid(),
    )
    lease = await acquire(
        SqlLeaseTable(database),
        me,
        lease_seconds=settings.lease_seconds,
        patient="MOORAGE_WAS_READY" in os.environ,
    )
    lease.start_keeping()
    return lease


def main() -> int:
    logs.configure("controller")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a ^C is the parent's to pass on
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the audit log is opened anew without
    settings = Settings.from_json(os.environ["MOORAGE_SETTINGS"])
    make_apart(settings.effective_database_url)
    try:
        uvloop.run(run(settings, os.environ["MOORAGE_URL"]))
    except UnusableDatabase as error:
        return last_words.leave(str(error))
    except DatabaseUnavailable as error:  # LeaseLost is one
        unusable = lasting(error)
        if unusable is not None:
            return last_words.leave(str(unusable))
        logger.error("%s", error)
        return os.EX_TEMPFAIL
    return 0


if __name__ == "__main__":
    sys.exit(main())
