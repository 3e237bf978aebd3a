"""The gateway process: a listening socket handed down by the parent, connections, the sweep, the drain."""

import asyncio
import logging
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from moorage.audit import AuditLog
from moorage.auth.access import Access
from moorage.auth.verifier import Verifier
from moorage.config import Settings
from moorage.gateway.client_connection import ClientConnection
from moorage.gateway.doors import Admission, Door, PlainAdmission, TlsAdmission
from moorage.gateway.feed import Report, follow, observed
from moorage.gateway.front import GatewayFront, Timed
from moorage.gateway.http import ReplyOpening, request_ids
from moorage.gateway.identities import Identities
from moorage.gateway.limits import LimitedConnection, limits_of
from moorage.gateway.neighbours import Neighbours
from moorage.gateway.s3.signing import S3Signer
from moorage.gateway.tls import Certificate
from moorage.gateway.unverified import UnverifiedBodies
from moorage.gateway.visitors import Visitors
from moorage.heap import Heap
from moorage.routing.table import RoutingTable

_SWEEP_SECONDS = 0.05
_WAIT_FOR_TABLE_SECONDS = 5.0
_EXPIRE_AT_ONCE = 16
_LOG_SECONDS = 60.0
"""Between two lines about the same attack."""

_BODIES_EVERY = 5  # the bodies that hold memory are looked at four times a second,
_SLOW_SWEEP_EVERY = 20  # client connections and stale pools once a second
logger = logging.getLogger(__name__)


class GatewayServer:
    """Serves a listening socket, with TLS if the settings have a certificate. `internal` is another, for the server's
    own processes, without TLS and without limits. `neighbours` are the listening sockets of the other gateways at the
    same port. Use as `async with GatewayServer(...).running(): …`."""

    def __init__(
        self,
        *,
        settings: Settings,
        verifier: Verifier,
        access: Access,
        s3_signer: S3Signer,
        listener: socket.socket,
        internal: socket.socket | None = None,
        neighbours: Sequence[socket.socket] = (),
        audit: AuditLog | None = None,
    ) -> None:
        self._internal = internal
        self._neighbours = neighbours
        self._audit = audit or AuditLog(None)
        self._certificate: Certificate | None = None
        if settings.tls_certificate:
            self._certificate = Certificate(Path(settings.tls_certificate), Path(settings.tls_key))
        self._settings = settings
        self._verifier = verifier
        self._access = access
        self._s3_signer = s3_signer
        self._listener = listener
        self._connections: set[ClientConnection] = set()
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        self._reports: asyncio.Queue[Report] = asyncio.Queue()
        self._longest_lag = 0.0  # of the event loop, since it was last told
        self._bodies_given_up = 0  # since it was last logged
        self._may_log_at = 0.0
        self.bodies = UnverifiedBodies(
            limit=settings.max_unverified_bytes, limit_of_one_address=settings.max_unverified_bytes_per_client
        )
        self.table = RoutingTable(
            on_drained=self._report_drained,
            max_concurrency=settings.max_concurrent_invocations_per_instance or sys.maxsize,
        )

    def __repr__(self) -> str:
        return f"<GatewayServer {len(self._connections)} connections, {self.table!r}>"

    @asynccontextmanager
    async def running(self, *, with_feed: bool = True) -> AsyncIterator[GatewayFront]:
        """Serve until the block ends; then drain: accept no more, finish what is in flight, close."""
        loop = asyncio.get_running_loop()
        front = GatewayFront(
            settings=self._settings,
            verifier=self._verifier,
            access=self._access,
            s3_signer=self._s3_signer,
            table=self.table,
            limits=limits_of(self._settings, loop.time),
            loop=loop,
            audit=self._audit,
        )
        common: dict[str, Any] = {
            "front": front,
            "bodies": self.bodies,
            "turns": front.turns,
            "settings": self._settings,
            "connections": self._connections,
            "all_closed": self._all_closed,
            "opening": ReplyOpening(),
            "request_ids": request_ids(),
            "loop": loop,
        }
        visitors = Visitors(self._settings.max_connections_per_client, self._settings.max_connections)
        connection: Callable[[], ClientConnection] = partial(ClientConnection, visitors=visitors, **common)
        if front.limits is not None:
            connection = partial(LimitedConnection, limits=front.limits, visitors=visitors, **common)
        tasks = [loop.create_task(self._sweep(front), name="sweep")]
        if with_feed:
            received = asyncio.Event()
            feed = follow(
                self._settings.feed_socket,
                self.table,
                self._reports,
                received,
                identities=Identities(self._access, self._verifier).hear,
                policies=self._access.replace_resource_policies,
                bucket_policies=self._access.replace_bucket_policies,
                endpoint_tags=self._access.change_resource_tags,
                control_plane=partial(setattr, front, "control_plane"),
                observe=lambda: self.observe(front),
            )
            tasks.append(loop.create_task(feed, name="follow the feed"))
            # Clients wait in the socket's queue meanwhile, rather than be told of endpoints that are not there.
            with suppress(TimeoutError):
                async with asyncio.timeout(_WAIT_FOR_TABLE_SECONDS):
                    await received.wait()
        admission = self._admission(connection, visitors)
        doors = [Door(self._listener, admission, loop)]
        if self._internal is not None:
            ours = partial(_internal, partial(ClientConnection, visitors=Visitors(), **common))
            doors.append(Door(self._internal, PlainAdmission(ours, loop), loop))
        looking_after: asyncio.Task[None] | None = None
        if self._neighbours:
            looking_after = loop.create_task(
                Neighbours(self._neighbours, admission).look_after(), name="look after the neighbours"
            )
            tasks.append(looking_after)
        try:
            yield front
        finally:
            if looking_after is not None:
                looking_after.cancel()
            for door in doors:
                await door.close()
            await self._drain()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            front.close()

    def _admission(self, connection: Callable[[], ClientConnection], visitors: Visitors) -> Admission:
        """Of clients."""
        loop = asyncio.get_running_loop()
        if self._certificate is None:
            return PlainAdmission(connection, loop)
        return TlsAdmission(
            certificate=self._certificate,
            visitors=visitors,
            connection=connection,
            handshake_seconds=self._settings.header_timeout_seconds,
            loop=loop,
        )

    def observe(self, front: GatewayFront) -> Iterator[Report]:
        """What has been counted since the last time, and how this process does now."""
        yield {"error_replies": front.take_error_replies()}
        lag, self._longest_lag = self._longest_lag, 0.0
        process = {
            "name": "gateway",
            "connections": len(self._connections),
            "event_loop_lag_seconds": lag,
        }
        yield from observed(self.table, process)

    def _report_drained(self, instance_id: str) -> None:
        self._reports.put_nowait({"drained": instance_id})

    async def _drain(self) -> None:
        for connection in list(self._connections):
            connection.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_timeout_seconds):
                await self._all_closed.wait()
        for connection in list(self._connections):
            logger.warning("cut off at shutdown: a connection whose invocation did not end in time")
            connection.abort()

    async def _sweep(self, front: GatewayFront) -> None:
        loop = asyncio.get_running_loop()
        heap = Heap()
        turn = 0
        while True:
            asleep_at = monotonic()
            await asyncio.sleep(_SWEEP_SECONDS)
            self._longest_lag = max(self._longest_lag, monotonic() - asleep_at - _SWEEP_SECONDS)
            now = loop.time()
            _expire(front.overdue(now))
            turn = (turn + 1) % _SLOW_SWEEP_EVERY
            if turn % _BODIES_EVERY == 0:
                self._bodies_given_up += self.bodies.look(now)
            if turn == 0:
                heap.give_back_after(self.bodies.take_peak())
                front.close_stale_connections()
                front.refusals.tell_left_out()
                self._log_given_up(now)
                if self._certificate is not None:
                    self._certificate.reload_if_changed()
                    self._certificate.complain(datetime.now(UTC))
                await self._expire_connections(now)

    def _log_given_up(self, now: float) -> None:
        if self._bodies_given_up and now >= self._may_log_at:
            logger.warning(
                "%d request bodies were given up: they came slowly while others waited for the memory that "
                "max_unverified_bytes and max_unverified_bytes_per_client allow",
                self._bodies_given_up,
            )
            self._bodies_given_up = 0
            self._may_log_at = now + _LOG_SECONDS

    async def _expire_connections(self, now: float) -> None:
        """A few at a time: thousands may have come together, and everyone else has to wait meanwhile."""
        overdue = [connection for connection in self._connections if connection.deadline <= now]
        for first in range(0, len(overdue), _EXPIRE_AT_ONCE):
            some = overdue[first : first + _EXPIRE_AT_ONCE]
            _expire([c for c in some if c in self._connections and c.deadline <= now])
            await asyncio.sleep(0)


def _expire(overdue: Sequence[Timed]) -> None:
    """A fault in ending one must not keep the others from being ended, now or later."""
    for each in overdue:
        try:
            each.expire()
        except Exception:
            logger.exception("what was overdue could not be ended")


def _internal(make: Callable[[], ClientConnection]) -> ClientConnection:
    connection = make()
    connection.internal = True
    return connection
