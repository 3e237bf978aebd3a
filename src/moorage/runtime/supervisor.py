"""The parent process of `moorage serve`: it owns every other process, and does nothing else.

It holds the listening socket, so that a gateway that dies loses no connection waiting to be accepted; it runs the
process launcher, so that instances outlive the controller; and it is small, so that little in it can go wrong.
Shutdown is the reverse of start-up: gateways drain, the controller ends, instances stop, then the S3.
"""

import asyncio
import fcntl
import logging
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from moorage.auth.credentials import read_or_create_root_key
from moorage.config import Settings
from moorage.launchers.process import ProcessLauncher, become_subreaper, sweep
from moorage.launchers.remote import LauncherServer
from moorage.runtime.children import Child

_READY_TIMEOUT_SECONDS = 60.0
_POLL_SECONDS = 0.02
logger = logging.getLogger(__name__)


class CannotServe(Exception):
    """The server cannot start; the text says why and what to do."""


async def serve(settings: Settings, *, announce: Callable[[str], None]) -> None:
    """Run the whole server until SIGTERM or SIGINT. `announce` is given the URL once it is ready.

    Raises:
        CannotServe: the data directory is in use, the port is taken, or the server does not become ready.
    """
    _make_directories(settings)
    with _only_server_of(settings.data_dir), _listener(settings) as listener:
        url = _url(settings, listener)
        settings.url_file.write_text(url)
        try:
            await _Supervisor(settings, listener, url).run(announce)
        finally:
            settings.url_file.unlink(missing_ok=True)


class _Supervisor:
    def __init__(self, settings: Settings, listener: socket.socket, url: str) -> None:
        self._settings = settings
        self._listener = listener
        self._url = url
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._marker = str(settings.data_dir)

    async def run(self, announce: Callable[[str], None]) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        become_subreaper()
        leftovers = sweep(self._marker)
        if leftovers:
            logger.warning("killed %d processes that an earlier run had left behind", leftovers)
        read_or_create_root_key(self._settings.credentials_file, account_id=self._settings.account_id)
        async with AsyncExitStack() as stack:
            await self._start(stack)
            if await self._ready():
                announce(self._url)
                await self._stop.wait()
            logger.info("stopping: invocations in flight are finished first")

    async def _start(self, stack: AsyncExitStack) -> None:
        """Start everything; what is pushed on the stack last is stopped first."""
        settings = self._settings
        if not settings.s3_endpoint:
            s3 = Child(
                "S3",
                _s3_command(settings),
                environment=_s3_environment(settings),
                socket=settings.s3_socket,
            )
            stack.push_async_callback(self._stop_child, s3, 5.0)
        launcher = ProcessLauncher(
            marker=self._marker,
            region=settings.region,
            stop_timeout_seconds=settings.stop_timeout_seconds,
        )
        stack.push_async_callback(self._close_launcher, launcher)
        launcher_server = LauncherServer(launcher, settings.launcher_socket)
        await launcher_server.start()
        stack.push_async_callback(launcher_server.close)
        environment = {**os.environ, "MOORAGE_SETTINGS": settings.to_json(), "MOORAGE_URL": self._url}
        controller = Child(
            "controller",
            (sys.executable, "-m", "moorage.runtime.controller_process"),
            environment=environment,
        )
        stack.push_async_callback(self._stop_child, controller, 15.0)
        descriptor = self._listener.fileno()
        gateways = [
            Child(
                f"gateway {number + 1}" if settings.workers > 1 else "gateway",
                (sys.executable, "-m", "moorage.runtime.gateway_process", str(descriptor)),
                environment=environment,
                pass_fds=(descriptor,),
            )
            for number in range(settings.workers)
        ]
        stack.push_async_callback(self._stop_gateways, gateways)

    async def _ready(self) -> bool:
        """Wait until the health check answers 200; False when asked to stop before."""
        end = time.monotonic() + _READY_TIMEOUT_SECONDS
        while not self._stop.is_set():
            if await _is_healthy(self._listener):
                return True
            if time.monotonic() > end:
                raise CannotServe(
                    f"The server did not become ready within {_READY_TIMEOUT_SECONDS:g} seconds. "
                    "The log lines above say which of its processes failed."
                )
            await asyncio.sleep(_POLL_SECONDS)
        return False

    def _on_signal(self) -> None:
        if self._stop.is_set():
            logger.warning("hurrying: invocations in flight are cut off")
            self._hurry.set()
        self._stop.set()

    async def _stop_gateways(self, gateways: list[Child]) -> None:
        self._listener.close()
        limit = self._settings.drain_timeout_seconds + 5.0
        await asyncio.gather(*(self._stop_child(gateway, limit) for gateway in gateways))

    async def _stop_child(self, child: Child, timeout_seconds: float) -> None:
        await self._unless_hurried(
            child.stop(signal.SIGTERM, timeout_seconds=timeout_seconds),
            lambda: child.stop(signal.SIGKILL, timeout_seconds=1.0),
        )

    async def _close_launcher(self, launcher: ProcessLauncher) -> None:
        await self._unless_hurried(launcher.close(), lambda: launcher.close(hurry=True))

    async def _unless_hurried(self, patient: Awaitable[None], hurried: Callable[[], Awaitable[None]]) -> None:
        """Do the one; when a second signal comes meanwhile (or has come), do the other as well."""
        task = asyncio.ensure_future(patient)
        hurry = asyncio.create_task(self._hurry.wait(), name="hurry")
        await asyncio.wait({task, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not task.done():
            await hurried()
        await task


def _make_directories(settings: Settings) -> None:
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        (settings.data_dir / "s3").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise CannotServe(
            f"Cannot create the data directory {settings.data_dir}: {error.strerror}. Give another with --data-dir."
        ) from error


@contextmanager
def _only_server_of(data_dir: Path) -> Iterator[None]:
    """Hold the data directory for this process alone."""
    with (data_dir / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise CannotServe(
                f"The data directory {data_dir} is in use by another Moorage (pid {holder}). "
                "Stop that one, or give another directory with --data-dir."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def _listener(settings: Settings) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=4096)
    except OSError as error:
        raise CannotServe(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. "
            "Another program may use the port: give another with --port (0 takes a free one)."
        ) from error
    listener.set_inheritable(True)
    with listener:
        yield listener


def _url(settings: Settings, listener: socket.socket) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"http://{host}:{listener.getsockname()[1]}"


async def _is_healthy(listener: socket.socket) -> bool:
    host, port = listener.getsockname()[:2]
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"GET /_moorage/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return (await reader.readline()).split(b" ")[1:2] == [b"200"]
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def _s3_command(settings: Settings) -> tuple[str, ...]:
    """The embedded S3, on a Unix socket that only this user reaches and with no keys of its own: the gateway has
    verified every request that comes to it."""
    program = Path(sys.executable).with_name("rclone")
    return (
        str(program) if program.exists() else shutil.which("rclone") or "rclone",
        *("serve", "s3", str(settings.data_dir / "s3")),
        *("--addr", f"unix://{settings.s3_socket}", "--config", "/dev/null"),
        *("--max-header-bytes", str(2 * settings.max_header_bytes)),
        *("--vfs-cache-mode", "off", "--dir-cache-time", "1s", "--poll-interval", "0"),
        *("--log-level", "ERROR", "--no-cleanup"),
    )


def _s3_environment(settings: Settings) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(settings.data_dir), "GOGC": "50"}
