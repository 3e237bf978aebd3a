"""A hub with one model, as huggingface_hub asks for it."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REVISION = "0" * 39 + "1"


class Hub(ThreadingHTTPServer):
    """Of `files`, by their names. `seen` is what clients have asked for, and with which authorization."""

    def __init__(self, name: str, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name = name
        self.files = files
        self.seen: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.seen.append((path, self.headers.get("Authorization", "")))
        about, hub = f"/api/models/{self.server.name}", self.server
        if path in (about, f"{about}/revision/main", f"{about}/revision/{REVISION}"):
            siblings = [{"rfilename": name} for name in hub.files]
            self._json({"id": hub.name, "sha": REVISION, "siblings": siblings})
        elif path == f"{about}/tree/{REVISION}":
            self._json(
                [
                    {
                        "type": "file",
                        "path": name,
                        "size": len(content),
                        "oid": hashlib.sha1(content).hexdigest(),
                    }
                    for name, content in hub.files.items()
                ]
            )
        elif path.startswith(f"/{hub.name}/resolve/{REVISION}/"):
            content = hub.files[path.rpartition("/")[2]]
            tag = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": REVISION}
            self._reply(200, content, "application/octet-stream", tag)
        else:
            missing = "RepoNotFound" if not path.startswith(about) else "RevisionNotFound"
            self._reply(404, b"", "text/plain", {"X-Error-Code": missing})

    do_HEAD = do_GET

    def _json(self, value: object) -> None:
        self._reply(200, json.dumps(value).encode(), "application/json", {})

    def _reply(self, status: int, body: bytes, content_type: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: tests look at `seen`."""


@contextmanager
def running(name: str, directory: Path, **more: bytes) -> Iterator[Hub]:
    hub = Hub(name, {path.name: path.read_bytes() for path in directory.iterdir()} | more)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
