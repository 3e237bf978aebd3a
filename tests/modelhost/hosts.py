"""Real model hosts for the tests: a process on a free port, a client, a look at what it leaves behind."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import moorage

PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def wait_until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.005)
    return result


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def state(pid: int) -> str:
    """As in proc(5): R runs, S sleeps, Z is a zombie, and X is nothing any more."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "X"
    return stat.rpartition(")")[2].split()[0]


def exists(pid: int) -> bool:
    """Zombies have ended; whoever adopts them in a container may never reap them."""
    return state(pid) not in "ZX"


class Host:
    """`base` is what /opt/ml is in a container, `python` the interpreter of the host."""

    def __init__(
        self, base: Path, environ: Mapping[str, str], *, python: Path = Path(sys.executable)
    ) -> None:
        self.base = base
        self.port = free_port()
        self._log = base / "log"
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("SAGEMAKER", "SM_"))
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(python), "-m", "moorage.modelhost", "serve"],
                stdout=log,
                stderr=log,
                env={
                    **inherited,
                    "PYTHONPATH": str(Path(moorage.__file__).parents[1]),
                    "SAGEMAKER_BASE_DIR": str(base),
                    "TMPDIR": str(base),
                    "SAGEMAKER_BIND_TO_HOST": "127.0.0.1",
                    "SAGEMAKER_BIND_TO_PORT": str(self.port),
                    "MOORAGE_ENVIRONMENTS_DIR": str(base / "environments"),
                    **environ,
                },
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)

    def request(
        self, method: str, path: str, body: bytes | str = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        connection = self.connect()
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def ping(self) -> Reply:
        return self.request("GET", "/ping")

    def invoke(self, body: bytes | str, content_type: str = "application/json", **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("POST", "/invocations", body, {"Content-Type": content_type, **named})

    def is_open(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except ConnectionRefusedError:
            return False
        return True

    def wait_ready(self) -> "Host":
        wait_until(lambda: self.process.poll() is not None or self.is_open(), "the port")
        assert self.process.poll() is None, self.log
        assert self.ping().status == 200
        return self

    def wait_failed(self) -> str:
        """The last line on stderr of a start that fails."""
        assert self.process.wait(PATIENCE_SECONDS) == 1, self.log
        return self.log.rstrip("\n").rpartition("\n")[2]

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)


class Starter:
    """Starts hosts, and ends the ones that a test has left."""

    def __init__(self, tmp_path: Path) -> None:
        self._tmp_path = tmp_path
        self.hosts: list[Host] = []

    def base(self) -> Path:
        base = self._tmp_path / f"host{len(self.hosts)}"
        (base / "model").mkdir(parents=True, exist_ok=True)
        return base

    def start(
        self, inference: str | None = None, *, python: Path = Path(sys.executable), **environ: Any
    ) -> Host:
        """Without waiting. `inference` is the source of code/inference.py; it finds its base as BASE."""
        base = self.base()
        if inference is not None:
            (base / "model" / "code").mkdir(exist_ok=True)
            header = f"import pathlib\nBASE = pathlib.Path({str(base)!r})\n"
            (base / "model" / "code" / "inference.py").write_text(header + textwrap.dedent(inference))
        host = Host(base, {name: str(value) for name, value in environ.items()}, python=python)
        self.hosts.append(host)
        return host

    def ready(self, inference: str | None = None, **environ: Any) -> Host:
        return self.start(inference, **environ).wait_ready()

    def close(self) -> None:
        for host in self.hosts:
            if host.process.poll() is None:
                host.process.kill()
            host.process.wait()
