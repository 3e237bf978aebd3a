"""Small containers for the tests of the launchers, and ways to wait for what becomes of them."""

import asyncio
import os
import select
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

from moorage.launchers import procfs
from moorage.launchers.base import InstanceSpec, InstanceState, InstanceStatus, Launcher
from moorage.launchers.process import ProcessLauncher

SERVER = """
import os, http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(STATUS)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"state")
    def log_message(self, *args):
        pass
STATUS = 200
PORT = int(os.environ["SAGEMAKER_BIND_TO_PORT"])
def serve(port=PORT, status=200):
    global STATUS
    STATUS = status
    http.server.HTTPServer((os.environ["SAGEMAKER_BIND_TO_HOST"], port), Handler).serve_forever()
"""
HEALTHY = SERVER + "serve()"


def new_id() -> str:
    return f"i-{uuid.uuid4().hex[:12]}"


def spec_for(directory: Path, script: str = HEALTHY, **changes: Any) -> InstanceSpec:
    """A spec whose container runs `script`."""
    instance_id = changes.pop("instance_id", None) or new_id()
    values: dict[str, Any] = {
        "instance_id": instance_id,
        "account_id": "000000000000",
        "endpoint_name": "ep",
        "variant_name": "AllTraffic",
        "deployment_id": "d-1",
        "container_hostname": "container-1",
        "argv": (sys.executable, "-S", "-c", script),
        "environment": {},
        "base_dir": str(directory / instance_id),
        "log_file": str(directory / f"{instance_id}.log"),
        "startup_timeout_seconds": 30.0,
    }
    return InstanceSpec(**(values | changes))


def process_launcher(directory: Path, **changes: Any) -> ProcessLauncher:
    values: dict[str, Any] = {"marker": str(directory), "stop_timeout_seconds": 5.0}
    return ProcessLauncher(**(values | changes))


async def until(
    launcher: Launcher, condition: Callable[[dict[str, InstanceState]], bool], *, seconds: float = 30
) -> dict[str, InstanceState]:
    """Watch until the latest states (with those that stopped) meet `condition`; return them."""
    latest: dict[str, InstanceState] = {}
    async with asyncio.timeout(seconds), aclosing(as_generator(launcher.watch())) as changes:
        async for states in changes:
            latest |= {state.spec.instance_id: state for state in states}
            if condition(latest):
                return latest
    raise AssertionError(f"the watch ended; latest: {latest}")


async def reaches(
    launcher: Launcher, instance_id: str, status: InstanceStatus, *, generation: int = 0, seconds: float = 30
) -> InstanceState:
    """Wait until one instance has that status (in that generation or a later one)."""

    def condition(latest: dict[str, InstanceState]) -> bool:
        state = latest.get(instance_id)
        return state is not None and state.status is status and state.generation >= generation

    return (await until(launcher, condition, seconds=seconds))[instance_id]


def as_generator(iterator: AsyncIterator[Sequence[InstanceState]]) -> Any:
    """Every `watch` is a generator that can be closed, though the seam does not promise it."""
    return cast(Any, iterator)


def log_of(spec: InstanceSpec) -> str:
    return Path(spec.log_file).read_text()


def living(marker: str, instance_id: str) -> list[procfs.Process]:
    """What runs of an instance, by its markers."""
    return procfs.members(procfs.processes(), leader=0, marker=marker, instance_id=instance_id)


def leader_of(spec: InstanceSpec, marker: str) -> int:
    (leader,) = [
        process.pid for process in living(marker, spec.instance_id) if process.pid == process.session
    ]
    return leader


def wait_for_death(pids: Iterable[int], *, seconds: float = 10) -> None:
    """Block until each of these processes is dead."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            ready, _, _ = select.select([descriptor], [], [], seconds)
            assert ready, f"process {pid} is still alive"
        finally:
            os.close(descriptor)


class Mailbox:
    """A named pipe through which a container tells the test something, a line at a time.

    A container writes with `open(path, "w").write("…\\n")`; nobody polls, and nothing blocks if nobody writes.
    """

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._buffer = b""

    def close(self) -> None:
        os.close(self._descriptor)

    async def line(self, *, seconds: float = 30) -> str:
        async with asyncio.timeout(seconds):
            while b"\n" not in self._buffer:
                await self._readable()
                self._buffer += os.read(self._descriptor, 65536)
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        event = asyncio.Event()
        loop.add_reader(self._descriptor, event.set)
        try:
            await event.wait()
        finally:
            loop.remove_reader(self._descriptor)
