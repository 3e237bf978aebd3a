"""The loop of a worker: its clients' connections, the front's messages, and one request at a time.

One thread reads, runs and replies, so that nothing is handed from thread to thread on the way of an invocation.
Bodies that come slowly wait in their connections; others are served meanwhile. A client's requests are answered in
order, and after each of them it is the turn of the others.

A client that does not read its reply holds up nobody else either: what is not sent is kept, a stream is not advanced,
and both go on when the client has read. A client has `PATIENCE_SECONDS` the first time that this happens, since a
stream that is left at a yield while other invocations run is more than some user code is made for.

Where invocations are run in batches, those that are there are gathered, and run together. Where they run side by
side, the loop of `side_by_side` makes the rounds.
"""

import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic

from moorage.modelhost import http, messages
from moorage.modelhost.connection import Connection, Request
from moorage.modelhost.gathering import Gathering
from moorage.modelhost.messages import Kind
from moorage.modelhost.reply import Reply
from moorage.modelhost.shared import Shared, State
from moorage.modelhost.streams import Running, Stream
from moorage.modelhost.watcher import Watcher

Call = tuple[Connection, Request, Reply]
Invoke = Callable[[Connection, Request, Reply], Stream | Running | None]
InvokeAll = Callable[[Sequence[Call]], list[Stream | None]]
GoOn = Callable[[Connection, Stream], Stream | None]
"""All return a stream that waits for its client to read, or None."""

_EVENTS = select.EPOLLIN | select.EPOLLRDHUP
_END = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
PATIENCE_SECONDS = 0.05
_EVENTS_AT_ONCE = 64
_MESSAGE_BYTES = 64
_DESCRIPTOR = struct.Struct("i")


class Server:
    """`keeps`: whether connections stay here; else each goes back to the front with its reply. `patience_seconds`:
    how long a stream waits for its client to read before others are served; None is for ever."""

    def __init__(
        self,
        control: socket.socket,
        shared: Shared,
        watcher: Watcher,
        invoke: Invoke,
        go_on: GoOn,
        *,
        keeps: bool,
        max_request_bytes: int | None,
        patience_seconds: float | None,
        batches: tuple[Gathering, InvokeAll] | None = None,
    ) -> None:
        self._control = control
        self._shared = shared
        self._watcher = watcher
        self._invoke = invoke
        self._go_on = go_on
        self._patience_seconds = patience_seconds
        self._batches = batches
        self._keeps = keeps
        self._max_request_bytes = max_request_bytes
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._by_slot: dict[int, Connection] = {}
        self._backlog: deque[Connection] = deque()
        """Of connections that have been served, and have more to be served: they have waited for the others."""
        self._gathered: deque[Connection] = deque()
        self._gathered_since = 0.0
        self._running: set[Connection] = set()
        """Connections whose invocations run beside others."""
        self._unread: dict[Connection, tuple[bool, Stream | Callable[[], None] | None]] = {}
        """Connections whose clients have to read before more can be sent. With each: whether it is closed after that,
        and the stream that goes on, if one does, or what is called then."""
        self._draining = False
        self._epoll.register(control, select.EPOLLIN)

    def run(self) -> None:
        """Returns when the front has said SHUTDOWN, and all that was there is served."""
        while self.step(self.patience()):
            pass

    def fileno(self) -> int:
        """Readable when a step has something to do."""
        return self._epoll.fileno()

    def step(self, seconds: float | None) -> bool:
        """Waits so long for something to come, and serves it. False when all is served that was there at SHUTDOWN."""
        control = self._control.fileno()
        connections = self._connections
        events = self._epoll.poll(seconds, _EVENTS_AT_ONCE)
        heard = False
        for descriptor, event in events:
            if descriptor == control:
                heard = True
            elif (connection := connections.get(descriptor)) is not None:
                self._receive(connection, event)
        # Behind them: a new connection may have the descriptor of one that has just been closed.
        while heard:
            heard = self._hear()
        for _ in range(len(self._backlog)):
            self._serve(self._backlog.popleft())
        if self._gathered and (self._draining or not self._wait_for_more()):
            self._serve_all()
        return not self._draining or bool(events or self._backlog or self._gathered) or not self._is_empty()

    def patience(self) -> float | None:
        """Seconds until the next step has something to do in any case."""
        if self._backlog:
            return 0
        if self._gathered:
            return self._wait_for_more()
        if self._draining and not (
            self._connections and all(map(self._is_pending, self._connections.values()))
        ):
            return 0  # a look at what is there, before the idle ones are closed
        return None

    def _is_pending(self, connection: Connection) -> bool:
        return connection.is_pending or connection in self._running

    def _is_empty(self) -> bool:
        """Whether the last connection is closed, after those are from which nothing is to come."""
        for connection in list(self._connections.values()):
            if not self._is_pending(connection):
                self._close(connection)
        return not self._connections

    # The front's messages.

    def _hear(self) -> bool:
        """Whether there was a message. All are heard at once: one a round would wait for every client's turn."""
        try:
            packet, ancillary, _flags, _address = self._control.recvmsg(
                _MESSAGE_BYTES,
                socket.CMSG_SPACE(_DESCRIPTOR.size),
                socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC,
            )
        except BlockingIOError:
            return False
        if not packet:
            return False  # the watching thread ends us
        message = messages.decode(packet)
        match message.kind:
            case Kind.CONNECTION:
                self._adopt(message.slot, ancillary)
            case Kind.GO:
                self._go(message.slot)
            case Kind.TIDY:
                self._tidy()
            case Kind.SHUTDOWN:
                self._draining = True
        return True

    def _adopt(self, slot: int, ancillary: list[tuple[int, int, bytes]]) -> None:
        if not ancillary:  # we have no descriptor left for it
            self._tell(Kind.CLOSED, slot)
            return
        (descriptor,) = _DESCRIPTOR.unpack_from(ancillary[0][2])
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor)
        sock.settimeout(None)  # the front's loop, or a default of user code, may have chosen otherwise
        connection = Connection(sock, slot, max_request_bytes=self._max_request_bytes)
        self._connections[descriptor] = self._by_slot[slot] = connection
        self._epoll.register(descriptor, _EVENTS)
        self._watcher.add(connection)

    def _go(self, slot: int) -> None:
        connection = self._by_slot.get(slot)
        if connection is not None:  # else it has been closed meanwhile
            connection.has_turn = True
            if connection in self._unread:
                self._advance(connection)
            else:
                self._epoll.modify(connection.fd, _EVENTS)
                self._serve(connection)

    def _tidy(self) -> None:
        """Closes what has been idle since the last time."""
        for connection in list(self._connections.values()):
            if not self._is_pending(connection):
                if connection.unused:
                    self._close(connection)
                connection.unused = True

    def _tell(self, kind: Kind, slot: int = 0) -> None:
        self._control.send(messages.encode(kind, slot))

    # Clients.

    def _receive(self, connection: Connection, event: int) -> None:
        if event & _END:
            self._close(connection)  # whoever asked does not wait for the answer any more
            return
        if connection in self._unread:
            self._send_on(connection)
            return
        if connection.requests:
            return  # it waits to be served, and what comes behind them may wait where it is
        self._shared.states[connection.slot] = State.CONSUMED
        if not connection.receive():
            self._close(connection)
        elif not connection.requests:
            self._rest(connection)
        elif connection.has_turn:
            self._serve(connection)
        else:
            self._ask_for_turn(connection)

    def _serve(self, connection: Connection) -> None:
        """Answers the first of its requests, or gathers it."""
        if self._batches is not None:
            if not self._gathered:
                self._gathered_since = monotonic()
            self._gathered.append(connection)
            return
        request = connection.requests.popleft()
        if connection.gone:
            self._close(connection)
            return
        closes, stream = self._answer(connection, request)
        self._answered(connection, closes, stream)

    def _wait_for_more(self) -> float:
        """Seconds, before those that are gathered are run."""
        assert self._batches is not None
        gathering, _ = self._batches
        return gathering.wait(len(self._gathered), since=self._gathered_since, now=monotonic())

    def _serve_all(self) -> None:
        """Answers the first requests of those that are gathered, as one batch."""
        assert self._batches is not None
        gathering, invoke_all = self._batches
        began = monotonic()
        calls: list[Call] = []
        while self._gathered and len(calls) < gathering.most:
            connection = self._gathered.popleft()
            request = connection.requests.popleft()
            if connection.gone:
                self._close(connection)
                continue
            closes = request.close or (self._draining and not connection.requests)
            ended = self._answer_otherwise(connection, request, closes)
            if ended is None:
                calls.append((connection, request, self._reply(connection, request, closes)))
            else:
                self._answered(connection, ended, None)
        self._gathered_since = began
        if not calls:
            return
        streams = invoke_all(calls)
        for (connection, _, reply), stream in zip(calls, streams, strict=True):
            self._answered(connection, reply.closes, stream)
        callers = frozenset(connection.slot for connection, _, _ in calls)
        gathering.ran(callers, began=began, ended=monotonic())

    def when_sent(self, connection: Connection, call: Callable[[], None]) -> None:
        """Of an invocation that runs beside others: calls when its client has read what was sent so far."""
        self._unread[connection] = False, call
        self._epoll.modify(connection.fd, select.EPOLLOUT | select.EPOLLRDHUP)

    def ended(self, connection: Connection, *, closes: bool) -> None:
        """An invocation that ran beside others has. Its client may have gone."""
        if connection in self._running:
            self._running.remove(connection)
            self._unread.pop(connection, None)
            self._epoll.modify(connection.fd, _EVENTS)
            self._answered(connection, closes, None)

    def _answered(self, connection: Connection, closes: bool, stream: Stream | Running | None) -> None:
        """As far as the client has read."""
        if isinstance(stream, Running):
            self._running.add(connection)
            self._epoll.modify(connection.fd, select.EPOLLRDHUP)
        elif stream is not None or connection.unsent:
            self._wait_for_client(connection, closes, stream)
        elif closes or connection.gone:
            self._close(connection)
        elif connection.requests and not connection.has_turn:
            self._ask_for_turn(connection)
        elif connection.requests:
            self._shared.states[connection.slot] = State.CONSUMED
            self._backlog.append(connection)
        else:
            self._rest(connection)

    def _rest(self, connection: Connection) -> None:
        """Until more comes."""
        half_received = connection.is_half_received
        self._shared.states[connection.slot] = State.CONSUMED if half_received else State.UNTOUCHED
        if connection.expecting:
            connection.expecting = False
            self._send(connection, http.CONTINUE)
            if connection.unsent:
                self._wait_for_client(connection, False, None)
                return
        if self._keeps:
            return
        if not half_received:
            self._forget(connection)
            self._tell(Kind.RETURNED, connection.slot)
        else:
            self._give_turn_up(connection)

    def _give_turn_up(self, connection: Connection) -> None:
        """The front may give the turn to another connection. With one worker there are no turns to be given."""
        if connection.has_turn and not self._keeps:
            connection.has_turn = False
            self._tell(Kind.WAITING, connection.slot)

    def _ask_for_turn(self, connection: Connection) -> None:
        self._epoll.modify(connection.fd, select.EPOLLRDHUP)
        self._tell(Kind.READY, connection.slot)

    # Clients that do not read.

    def _wait_for_client(self, connection: Connection, closes: bool, stream: Stream | None) -> None:
        self._unread[connection] = closes, stream
        self._epoll.modify(connection.fd, select.EPOLLOUT | select.EPOLLRDHUP)
        self._give_turn_up(connection)

    def _send_on(self, connection: Connection) -> None:
        """The client has read."""
        try:
            connection.send_on()
        except OSError:
            self._close(connection)
            return
        if connection.unsent:
            return
        closes, stream = self._unread[connection]
        if callable(stream):
            del self._unread[connection]
            self._epoll.modify(connection.fd, select.EPOLLRDHUP)
            stream()
        elif stream is None:
            del self._unread[connection]
            self._epoll.modify(connection.fd, _EVENTS)
            self._answered(connection, closes, None)
        elif connection.has_turn:
            self._advance(connection)
        else:
            self._ask_for_turn(connection)

    def _advance(self, connection: Connection) -> None:
        """The stream whose client has read, or has gone."""
        _, stream = self._unread.pop(connection)
        assert stream is not None
        assert not callable(stream)
        self._epoll.modify(connection.fd, _EVENTS)
        still = self._go_on(connection, stream)
        self._answered(connection, stream.reply.closes, still)

    def _answer(self, connection: Connection, request: Request) -> tuple[bool, Stream | Running | None]:
        """Whether the connection is closed after the reply; and the reply if it is a stream that goes on."""
        closes = request.close or (self._draining and not connection.requests)
        ended = self._answer_otherwise(connection, request, closes)
        if ended is not None:
            return ended, None
        reply = self._reply(connection, request, closes)
        stream = self._invoke(connection, request, reply)
        return reply.closes, stream

    def _answer_otherwise(self, connection: Connection, request: Request, closes: bool) -> bool | None:
        """What is no invocation; whether the connection is closed after that. None where it is one."""
        if request.refusal is not None:
            status, sentence = request.refusal
            self._send(connection, http.text(status, sentence, close=True))
            return True
        if not http.is_invocation(request.method, request.url):
            reply = http.other(request.method, request.url, trouble=None, close=closes)
            return not self._send(connection, reply) or closes
        return None

    def _reply(self, connection: Connection, request: Request, closes: bool) -> Reply:
        return Reply(
            connection,
            self._shared,
            closes=closes,
            old=request.old,
            patience_seconds=self._patience_seconds,
        )

    def _send(self, connection: Connection, data: bytes) -> bool:
        try:
            connection.send(data)
        except OSError:
            return False
        return True

    def _close(self, connection: Connection) -> None:
        """The front sees the client off, with its own descriptor."""
        _, stream = self._unread.pop(connection, (True, None))
        if connection in self._running:
            self._running.remove(connection)
            connection.gone = True
            if connection.running is not None:
                connection.running.request()
        elif stream is not None and not callable(stream):
            connection.gone = True
            self._go_on(connection, stream)
        self._forget(connection)
        self._tell(Kind.CLOSED, connection.slot)

    def _forget(self, connection: Connection) -> None:
        del self._connections[connection.fd], self._by_slot[connection.slot]
        for waiting in (self._backlog, self._gathered):
            if connection in waiting:
                waiting.remove(connection)
        self._epoll.unregister(connection.fd)
        self._watcher.close(connection)
        connection.forget_parser()
