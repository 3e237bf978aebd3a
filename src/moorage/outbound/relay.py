"""Carries instances' connections and name lookups out of their network, from the machine's."""

import asyncio
import logging
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import Final, cast

from moorage.outbound.policy import DNS_PORT, Address, Policy, source_of

_SO_ORIGINAL_DST: Final = 80
_CONNECT_SECONDS: Final = 30.0
_LOOKUP_SECONDS: Final = 5.0
_MAX_CONNECTIONS: Final = 1024
"""Of one instance at once: each takes a port and two descriptors of the machine's."""
_MAX_LOOKUPS: Final = 256
_PIECE: Final = 64 * 1024
_HIGH_WATER: Final = 16 * 1024
"""What waits for an end that does not read is at most this and a piece, in each direction."""
_log = logging.getLogger(__name__)


class Relay:
    """Serves the listener and the resolver of `Links`. `policy` is asked for each call."""

    def __init__(self, policy: Callable[[], Policy]) -> None:
        self._policy = policy
        self._connections: Counter[str] = Counter()
        self._lookups: Counter[str] = Counter()
        self._connecting: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._resolver: asyncio.DatagramTransport | None = None

    def __repr__(self) -> str:
        return f"<Relay connections={self._connections.total()} lookups={self._lookups.total()}>"

    async def serve(self, listener: socket.socket, resolver: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Inner(self), sock=listener)
        self._resolver, _ = await loop.create_datagram_endpoint(lambda: _Lookups(self), sock=resolver)

    async def close(self) -> None:
        for task in self._connecting:
            task.cancel()
        if self._server is not None:
            self._server.close()
        if self._resolver is not None:
            self._resolver.close()

    # --- connections ----------------------------------------------------------------------------------

    def begin(self, inner: "_Inner", source: str, wanted: Address) -> None:
        """An instance has connected: connect to where it wants to go."""
        policy = self._policy()
        destination = policy.destination(*wanted)
        if destination is None or self._connections[source] >= _MAX_CONNECTIONS:
            inner.transport.abort()
            return
        self._connections[source] += 1
        inner.is_counted = True
        is_local = destination in (policy.server, policy.plain) and destination[0].startswith("127.")
        own = (source_of(source), 0) if is_local else None
        step = self._connect(inner, destination, own, policy)
        task = asyncio.create_task(step, name=f"connect to {destination[0]}")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def end(self, source: str) -> None:
        self._connections[source] -= 1
        if not self._connections[source]:
            del self._connections[source]

    async def _connect(
        self, inner: "_Inner", destination: Address, own: Address | None, policy: Policy
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await loop.create_connection(lambda: _Outer(inner, policy), *destination, local_addr=own)
        except (OSError, TimeoutError):
            inner.transport.abort()

    # --- lookups --------------------------------------------------------------------------------------

    def look_up(self, query: bytes, source: Address, reply: Callable[[bytes, Address], None]) -> None:
        servers = self._policy().name_servers
        if servers and self._lookups[source[0]] < _MAX_LOOKUPS:
            self._lookups[source[0]] += 1
            task = asyncio.create_task(self._ask(query, source, servers[0], reply), name="look up a name")
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _ask(
        self, query: bytes, source: Address, server: str, reply: Callable[[bytes, Address], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[bytes] = loop.create_future()
        transport = None
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                transport, _ = await loop.create_datagram_endpoint(
                    lambda: _Answer(answered), remote_addr=(server, DNS_PORT)
                )
                transport.sendto(query)
                reply(await answered, source)
        except (OSError, TimeoutError):
            return  # who asked asks again, or another name server
        finally:
            if transport is not None:
                transport.close()
            self._lookups[source[0]] -= 1
            if not self._lookups[source[0]]:
                del self._lookups[source[0]]


_received = memoryview(bytearray(_PIECE))
"""Where all connections receive: a piece is copied before the next one is read."""


class _Side(asyncio.BufferedProtocol):
    """One of the two connections of a call. What it receives the other one sends, no faster than that goes."""

    transport: asyncio.Transport
    other: "_Side | None" = None
    has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=_HIGH_WATER)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _received

    def buffer_updated(self, nbytes: int) -> None:
        self.received(bytes(_received[:nbytes]))

    def received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        """The other direction may go on."""
        self.has_ended = True
        if self.other is not None and self.other.transport.can_write_eof():
            self.other.transport.write_eof()
        return self.other is not None and not self.other.has_ended

    def connection_lost(self, exc: Exception | None) -> None:
        other, self.other = self.other, None
        if other is not None:
            other.other = None
            if exc is None:
                other.transport.close()
            else:
                other.transport.abort()

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.transport.resume_reading()


class _Inner(_Side):
    """From an instance."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._source = ""
        self._early = b""
        self.is_counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()
        sock = transport.get_extra_info("socket")
        try:
            original = sock.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, 16)
        except OSError:
            self.transport.abort()
            return
        port, packed = struct.unpack("!2xH4s8x", original)
        self._source = transport.get_extra_info("peername")[0]
        self._relay.begin(self, self._source, (socket.inet_ntoa(packed), port))

    def received(self, data: bytes) -> None:
        """uvloop begins to read after `connection_made` even if that has paused it, so a piece may come before the
        connection that it is for."""
        if self.other is None:
            self._early += data
            self.transport.pause_reading()
        else:
            super().received(data)

    def eof_received(self) -> bool:
        return super().eof_received() or self.other is None

    def join(self, outer: "_Outer") -> None:
        """The connection to where the instance wants to go has been made."""
        self.other = outer
        outer.transport.write(self._early)
        self._early = b""
        if self.has_ended:
            outer.transport.write_eof()
        else:
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.is_counted:
            self._relay.end(self._source)


class _Outer(_Side):
    """To where the instance wants to go."""

    def __init__(self, inner: _Inner, policy: Policy) -> None:
        self._inner = inner
        self._policy = policy

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        inner = self._inner
        ends = (transport.get_extra_info(name) for name in ("sockname", "peername"))
        if inner.transport.is_closing() or self._policy.reaches_machine(*ends):
            self.transport.abort()
            inner.transport.abort()
            return
        self.other = inner
        inner.join(self)


class _Lookups(asyncio.DatagramProtocol):
    """Instances' queries."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._relay.look_up(data, addr, self._transport.sendto)

    def error_received(self, exc: Exception) -> None:
        _log.debug("an answer to a name lookup did not arrive: %s", exc)


class _Answer(asyncio.DatagramProtocol):
    """The name server's answer to one query."""

    def __init__(self, answered: "asyncio.Future[bytes]") -> None:
        self._answered = answered

    def datagram_received(self, data: bytes, addr: Address) -> None:
        if not self._answered.done():
            self._answered.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._answered.done():
            self._answered.set_exception(exc)
