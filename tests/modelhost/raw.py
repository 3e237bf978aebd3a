"""A client that says HTTP/1.1 byte by byte, as the test wants it."""

import socket
from types import TracebackType

from .hosts import PATIENCE_SECONDS, Host, Reply


def invocation(body: bytes | str, *lines: str, version: str = "1.1") -> bytes:
    data = body.encode() if isinstance(body, str) else body
    head = [
        f"POST /invocations HTTP/{version}",
        "Host: x",
        "Content-Type: application/json",
        f"Content-Length: {len(data)}",
        *lines,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + data


PING = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"


class Client:
    def __init__(self, host: Host) -> None:
        self.sock = socket.create_connection(("127.0.0.1", host.port), timeout=PATIENCE_SECONDS)
        self._file = self.sock.makefile("rb")

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def reply(self) -> Reply:
        """One that says how long it is."""
        status = int(self.line().split(b" ")[1])
        headers = {}
        while line := self.line().strip():
            name, _, value = line.decode("latin-1").partition(": ")
            headers[name.lower()] = value
        return Reply(status, headers, self._file.read(int(headers["content-length"])))

    def line(self) -> bytes:
        return self._file.readline()

    def rest(self) -> bytes:
        """All that comes until the other side closes. ConnectionResetError when it resets."""
        return self._file.read()
