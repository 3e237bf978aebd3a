"""The embedded S3 at a TCP port, as an S3 that Moorage does not run itself."""

import socket
import threading
from contextlib import suppress
from pathlib import Path

from moorage.storage.s3_accounts import S3Accounts
from tests.s3.program import SECRET_KEY, A, S3Program

KEY = {"AWS_ACCESS_KEY_ID": A, "AWS_SECRET_ACCESS_KEY": S3Accounts(SECRET_KEY).secret_of(A)}


class OtherS3:
    """Its buckets belong to the account of KEY. It can be stopped and started again, on the same port."""

    def __init__(self, folder: Path, *buckets: str) -> None:
        self._program = S3Program(folder)
        self._folder = self._program.root
        for bucket in buckets:
            (self._folder / bucket).mkdir(parents=True)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._relay: _Relay | None = None

    def start(self) -> "OtherS3":
        self._program.start()
        self._relay = _Relay(self._port, self._program.socket)
        return self

    def stop(self) -> None:
        if self._relay is not None:
            self._relay.close()
            self._relay = None
        self._program.ensure_stopped()

    def read(self, url: str) -> bytes | None:
        path = self._folder / url.removeprefix("s3://")
        return path.read_bytes() if path.exists() else None

    def write(self, url: str, data: bytes) -> None:
        path = self._folder / url.removeprefix("s3://")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def remove(self, url: str) -> None:
        (self._folder / url.removeprefix("s3://")).unlink()


class _Relay:
    """Connects a TCP port with a Unix socket."""

    def __init__(self, port: int, path: Path) -> None:
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", port))
        self._connections: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Nothing is accepted any more, and connections are cut."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._path))
                self._connections |= {client, server}
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(64 * 1024):
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._connections -= {source}
        source.close()
