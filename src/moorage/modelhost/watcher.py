"""Notices that clients, or the front, have gone while the main thread is in user code.

A thread that sleeps in an epoll of its own, where connections are registered for nothing but their end: an
invocation costs it nothing.
"""

import contextlib
import os
import select
import socket
import threading

from moorage.modelhost.cancellation import RESEND_SECONDS, Cancellation
from moorage.modelhost.connection import Connection

_END = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Watcher:
    def __init__(self, control: socket.socket) -> None:
        self._epoll = select.epoll()
        self._epoll.register(control, select.EPOLLRDHUP | select.EPOLLET)
        self._control = control.fileno()
        self._connections: dict[int, Connection] = {}
        # Held while a descriptor goes out of use: what is said of it must not be taken for said of its next user.
        self._lock = threading.Lock()

    def start(self) -> None:
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def add(self, connection: Connection) -> None:
        self._connections[connection.fd] = connection
        self._epoll.register(connection.fd, select.EPOLLRDHUP | select.EPOLLET)

    def close(self, connection: Connection) -> None:
        """Closes our descriptor. The front has one too, so the kernel would not forget it by itself."""
        with self._lock:
            del self._connections[connection.fd]
            self._epoll.unregister(connection.fd)
            connection.sock.close()

    def _watch(self) -> None:
        deaf: Cancellation | None = None
        while True:
            for descriptor, _ in self._epoll.poll(RESEND_SECONDS if deaf is not None else None):
                if descriptor == self._control:
                    os._exit(1)
                deaf = self._gone(descriptor) or deaf
            if deaf is not None:
                if deaf.is_deaf:
                    deaf.nudge()
                else:
                    deaf = None

    def _gone(self, descriptor: int) -> Cancellation | None:
        """The cancellation of what its client has left."""
        with self._lock:
            connection = self._connections.get(descriptor)
            if connection is None or not _has_ended(connection.sock):
                return None
            connection.gone = True
            cancellation = connection.running
            if cancellation is not None:
                cancellation.request()
            # Who is blocked in sending to it wakes up.
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
            return cancellation


def _has_ended(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))
