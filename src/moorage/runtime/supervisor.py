"""The parent process of `moorage serve`: it owns every other process, and does nothing else.

It holds the listening socket, so that a gateway that dies loses no connection waiting to be accepted; it runs the
process launcher, so that instances outlive the controller; and it is small, so that little in it can go wrong.
Shutdown is the reverse of start-up: gateways drain, the controller ends, instances stop, then the S3.
"""

import asyncio
import errno
import fcntl
import ipaddress
import logging
import os
import shutil
import signal
import socket
import ssl
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from moorage.audit import AuditLog
from moorage.auth.credentials import read_or_create_root_key
from moorage.config import Settings
from moorage.launchers import isolation
from moorage.launchers.isolation import Isolation, IsolationError, Limits, Network
from moorage.launchers.process import ProcessLauncher, become_subreaper, sweep
from moorage.launchers.remote import LauncherServer
from moorage.launchers.server_access import ServerAccess
from moorage.outbound.client import OutboundClient
from moorage.outbound.keeper_client import KeeperClient
from moorage.outbound.policy import SERVER_ADDRESS
from moorage.runtime.child_output import log_s3_line
from moorage.runtime.children import Child
from moorage.runtime.last_words import CannotServe
from moorage.runtime.outbound_child import Networks, start_networks
from moorage.storage.s3_accounts import KEY_VARIABLE, S3Accounts

_READY_TIMEOUT_SECONDS = 60.0
_POLL_SECONDS = 0.02
_S3_PROGRAM = "moorage-s3"
_LOOPBACK_AND_EVERY = ("127.0.0.1", "localhost", "0.0.0.0")  # noqa: S104 - those that 127.0.0.1 leads to
logger = logging.getLogger(__name__)


async def serve(settings: Settings, *, announce: Callable[[str], None]) -> None:
    """Run the whole server until SIGTERM or SIGINT. `announce` is given the URL once it is ready.

    Raises:
        CannotServe: the data directory is in use, the port is taken, or one of the server's processes says why it
            cannot start, or does not become ready.
    """
    os.umask(0o077)  # what the server writes is for nobody else, containers least of all
    _make_directories(settings)
    _check_certificate(settings)
    _check_audit_log(settings)
    warn_of_plain_http(settings)
    with ExitStack() as stack:
        installation = stack.enter_context(_only_server_of(settings.data_dir))
        listeners = stack.enter_context(_listeners(settings))
        internal = stack.enter_context(_internal_listener()) if _is_apart(settings) else None
        url = _url(settings.host, listeners[0], secure=bool(settings.tls_certificate))
        internal_url = url if internal is None else _url("127.0.0.1", internal, secure=False)
        certificate = str(Path(settings.tls_certificate).absolute()) if settings.tls_certificate else ""
        for file, text in (
            (settings.url_file, url),
            (settings.internal_url_file, internal_url),
            (settings.shown_certificate_file, certificate),
        ):
            with _writing(file):
                file.write_text(text)
            stack.callback(file.unlink, missing_ok=True)
        await _Supervisor(settings, listeners, internal, url, internal_url, installation).run(announce)


class _Supervisor:
    def __init__(
        self,
        settings: Settings,
        listeners: Sequence[socket.socket],
        internal: socket.socket | None,
        url: str,
        internal_url: str,
        installation: str,
    ) -> None:
        self._settings = settings
        self._listeners = listeners
        self._internal = internal
        self._url = url
        self._internal_url = internal_url
        self._installation = installation
        self._controller: Child | None = None
        self._failure = ""
        self._was_ready = False
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._marker = str(settings.data_dir)

    async def run(self, announce: Callable[[str], None]) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        if not os.isatty(0):
            # What rotates logs sends it. The audit log is opened anew without; a terminal's end is still an end.
            loop.add_signal_handler(signal.SIGHUP, logger.debug, "SIGHUP")
        become_subreaper()
        leftovers = sweep(self._marker)
        if leftovers:
            logger.warning("killed %d processes that an earlier run had left behind", leftovers)
        with _writing(self._settings.credentials_file):
            _read_credentials(self._settings)
        async with AsyncExitStack() as stack:
            try:
                await self._start(stack)
                is_ready = await self._ready()
            except CannotServe:
                self._hurry.set()  # there is nothing yet that anybody could wait for
                raise
            if is_ready:
                assert self._controller is not None
                self._controller.environment["MOORAGE_WAS_READY"] = "yes"
                self._was_ready = True
                announce(self._url)
                await self._stop.wait()
            logger.info("stopping: invocations in flight are finished first")

    async def _start(self, stack: AsyncExitStack) -> None:
        """Start everything; what is pushed on the stack last is stopped first."""
        settings = self._settings
        s3_key = {KEY_VARIABLE: S3Accounts.new().master_hex}
        if not settings.s3_endpoint:
            s3 = Child(
                "S3",
                _s3_command(settings),
                environment={"PATH": os.defpath, **s3_key},
                socket=settings.s3_socket,
                take_line=log_s3_line,
                gives_up=self._give_up,
            )
            stack.push_async_callback(self._stop_child, s3, 5.0)
        networks = await start_networks(settings, self._url, self._plain_url)
        if networks.child is not None:
            stack.push_async_callback(self._stop_child, networks.child, 5.0)
        fences = await asyncio.to_thread(_isolation, settings, networks)
        outbound = keeper = None
        if networks.child is not None and fences.network is Network.HOST:
            await self._stop_child(networks.child, 5.0)
        elif networks.keeps:
            keeper = KeeperClient(settings.outbound_socket)
        elif networks.child is not None:
            outbound = OutboundClient(settings.outbound_socket)
            stack.push_async_callback(outbound.close)
        launcher = ProcessLauncher(
            marker=self._marker,
            region=settings.region,
            environment=_container_environment(self._url) if fences.network is Network.OUTBOUND else None,
            stop_timeout_seconds=settings.stop_timeout_seconds,
            access=self._server_access(fences.network),
            isolation=fences,
            outbound=outbound,
            keeper=keeper,
            ends_orphans=True,
            log_limit_bytes=settings.container_log_bytes,
            log_rate=settings.container_log_bytes_per_second,
        )
        stack.push_async_callback(self._close_launcher, launcher)
        launcher_server = LauncherServer(launcher, settings.launcher_socket)
        with _writing(settings.launcher_socket):
            await launcher_server.start()
        stack.push_async_callback(launcher_server.close)
        environment = {
            **os.environ,
            "MOORAGE_SETTINGS": settings.to_json(),
            "MOORAGE_URL": self._internal_url,
            "MOORAGE_INSTALLATION": self._installation,
            **s3_key,
        }
        self._controller = Child(
            "controller",
            (sys.executable, "-m", "moorage.runtime.controller_process"),
            environment=environment,
            gives_up=self._give_up,
        )
        stack.push_async_callback(self._stop_child, self._controller, 15.0)
        gateways = [
            Child(
                f"gateway {number + 1}" if settings.workers > 1 else "gateway",
                self._gateway_command(number),
                environment=environment,
                pass_fds=[listener.fileno() for listener in self._all_listeners()],
                gives_up=self._give_up,
            )
            for number in range(settings.workers)
        ]
        stack.push_async_callback(self._stop_gateways, gateways)

    @property
    def _plain_url(self) -> str:
        """Where this server is called without TLS by what runs beside it."""
        return self._internal_url if self._settings.tls_certificate else self._url

    def _server_access(self, network: Network) -> ServerAccess | None:
        match network:
            case Network.ISOLATED:
                return None
            case Network.OUTBOUND:
                return ServerAccess(url=f"http://{SERVER_ADDRESS}:{urlsplit(self._plain_url).port}")
            case Network.HOST:
                return ServerAccess(url=self._plain_url, credentials_url=self._internal_url)

    async def _ready(self) -> bool:
        """Wait until the health check answers 200 and the S3 listens; False when asked to stop before."""
        # Another controller may hold the lease, and is waited for as long as it may be dead.
        seconds = _READY_TIMEOUT_SECONDS + self._settings.lease_seconds
        end = time.monotonic() + seconds
        while not self._stop.is_set():
            if self._failure:
                raise CannotServe(self._failure)
            if await _is_healthy(self._internal or self._listeners[0]) and (
                self._settings.s3_endpoint or await _accepts(self._settings.s3_socket)
            ):
                return True
            if time.monotonic() > end:
                raise CannotServe(
                    f"The server did not become ready within {seconds:g} seconds. "
                    "The log lines above say what it waits for, or which of its processes failed."
                )
            await asyncio.sleep(_POLL_SECONDS)
        return False

    def _give_up(self, sentence: str) -> bool:
        """A process cannot go on as things are. Once the server has been ready, there may be endpoints in service,
        which the other processes keep answering; so it is tried again."""
        if not self._was_ready:
            self._failure = self._failure or sentence
        return not self._was_ready

    def _all_listeners(self) -> list[socket.socket]:
        return [*self._listeners, *([self._internal] if self._internal is not None else [])]

    def _gateway_command(self, number: int) -> tuple[str, ...]:
        """Each has a listener of its own, and looks after those of the others."""
        descriptors = [str(listener.fileno()) for listener in self._listeners]
        own_first = ",".join([*descriptors[number:], *descriptors[:number]])
        internal = (str(self._internal.fileno()),) if self._internal is not None else ()
        return sys.executable, "-m", "moorage.runtime.gateway_process", own_first, *internal

    def _on_signal(self) -> None:
        if self._stop.is_set():
            logger.warning("hurrying: invocations in flight are cut off")
            self._hurry.set()
        self._stop.set()

    async def _stop_gateways(self, gateways: list[Child]) -> None:
        for listener in self._all_listeners():
            listener.close()
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
    for directory in (settings.data_dir, settings.run_dir, settings.data_dir / "s3"):
        if directory.exists() and not directory.is_dir():
            raise CannotServe(f"{directory} is no directory. Give another data directory with --data-dir.")
        with _writing(directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What cannot be written in the data directory ends the start, in words."""
    try:
        yield
    except OSError as error:
        advice = "Let the user that runs the server write there, or give another directory with --data-dir."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "Free some space there, or give another directory with --data-dir."
        raise CannotServe(f"Cannot read or write {path}: {error.strerror}. {advice}") from error


def _read_credentials(settings: Settings) -> None:
    try:
        read_or_create_root_key(settings.credentials_file, account_id=settings.account_id)
    except ValueError as error:
        raise CannotServe(f"The root access key cannot be read: {error}.") from error


@contextmanager
def _only_server_of(data_dir: Path) -> Iterator[str]:
    """Hold the data directory for this process alone; gives a name of this installation.

    The name is of the locked file on this start of this machine's kernel: of two processes with the same name, one
    had ended before the other got the lock, and a copy of the directory has another.
    """
    path = data_dir / "lock"
    with ExitStack() as stack:
        with _writing(path):
            file = stack.enter_context(path.open("ab+", buffering=0))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().decode().strip() or "unknown"
                raise CannotServe(
                    f"The data directory {data_dir} is in use by another Moorage (pid {holder}). "
                    "Stop that one, or give another directory with --data-dir."
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()).encode())
            status = os.fstat(file.fileno())
        yield f"{_boot_id()}:{status.st_dev}:{status.st_ino}"


def _boot_id() -> str:
    """Of this start of the kernel; where it is not told, of this process."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(uuid.uuid4())


@contextmanager
def _listeners(settings: Settings) -> Iterator[list[socket.socket]]:
    """One for each gateway, all at the same port, among which the kernel shares new connections out.

    The first is bound like any other, so that a port that somebody else has is not shared with them, and only then
    lets the others join it.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with ExitStack() as stack:
        try:
            first = stack.enter_context(_bound(family, settings.host, settings.port))
            if settings.workers > 1:
                first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            address = settings.host, first.getsockname()[1]
            others = (_bound(family, *address, shared=True) for _ in range(settings.workers - 1))
            listeners = [first, *map(stack.enter_context, others)]
            for listener in listeners:
                listener.listen(4096)
        except OSError as error:
            advice = {
                errno.EADDRINUSE: "Another program has the port: give another with --port (0 takes a free one).",
                errno.EACCES: "Ports below 1024 are for root: give another with --port (0 takes a free one).",
            }.get(error.errno or 0, "Give an address of this machine with --host (0.0.0.0 is all of them).")
            raise CannotServe(
                f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. {advice}"
            ) from error
        yield listeners


def _bound(family: socket.AddressFamily, host: str, port: int, *, shared: bool = False) -> socket.socket:
    sock = socket.socket(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family is socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    sock.set_inheritable(True)
    return sock


def _is_apart(settings: Settings) -> bool:
    """Whether the server's own processes, and the SDKs in containers that ask for credentials, need another door than
    its clients: SDKs ask loopback addresses only."""
    return bool(settings.tls_certificate) or settings.limits_keys or settings.host not in _LOOPBACK_AND_EVERY


def _internal_listener() -> socket.socket:
    """For the server's own processes on this machine, which need not know the certificate and are not limited."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.set_inheritable(True)
    return listener


def warn_of_plain_http(settings: Settings) -> None:
    if not settings.tls_certificate and not is_loopback(settings.host):
        logger.warning(
            "clients of other machines reach %s without TLS: signatures keep strangers from calling, but anybody on "
            "the network's way can read every body and reply. Set tls_certificate and tls_key, or have a proxy speak "
            "TLS",
            settings.host,
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a listener at this address or name."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name, which may be any address
        return False


def _check_certificate(settings: Settings) -> None:
    """Better now than in a gateway that ends as soon as it has begun."""
    if settings.tls_certificate:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                settings.tls_certificate,
                settings.tls_key,
                password=lambda: "",  # else OpenSSL asks the terminal for that of a key that has one
            )
        except OSError as error:  # ssl.SSLError is one
            raise CannotServe(
                f"The TLS certificate {settings.tls_certificate} with the key {settings.tls_key} cannot be used: "
                f"{error.strerror or error}. Both must be PEM files that this user can read, belong to each other, "
                "and have no password."
            ) from error


def _check_audit_log(settings: Settings) -> None:
    """Better no server than one whose calls leave no trace."""
    log = AuditLog(settings.audit_file)
    try:
        log.open()
    except OSError as error:
        raise CannotServe(
            f"Cannot write the audit log {settings.audit_file}: {error.strerror}. Give another file, or off, with "
            "the setting audit_log."
        ) from error
    log.close()


def _url(host: str, listener: socket.socket, *, secure: bool) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"{'https' if secure else 'http'}://{host}:{listener.getsockname()[1]}"


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


async def _accepts(path: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    return True


def _isolation(settings: Settings, networks: Networks) -> Isolation:
    try:
        return isolation.decide(
            container_user=settings.container_user,
            mode=settings.container_isolation,
            wanted_network=Network(settings.container_network),
            network=networks.network,
            keeps_networks=networks.keeps,
            why_no_network=networks.why_not,
            shm_bytes=settings.container_shm_bytes,
            limits=Limits(
                open_files=settings.container_max_open_files,
                processes=settings.container_max_processes,
                memory_bytes=settings.container_max_memory_bytes,
                file_bytes=settings.container_max_file_bytes,
            ),
            readable_paths=[Path(path) for path in settings.container_readable_paths.split(":") if path],
            data_dir=settings.data_dir,
            run_dir=settings.run_dir,
            resolv_conf_file=settings.resolv_conf_file,
        )
    except IsolationError as error:
        raise CannotServe(str(error)) from error


def _container_environment(url: str) -> dict[str, str]:
    """How a container with a network of its own reaches this server, whose URL there is another than here."""
    parts = urlsplit(url)
    return {"MOORAGE_ENDPOINT_URL": f"{parts.scheme}://{SERVER_ADDRESS}:{parts.port}"}


def _s3_command(settings: Settings) -> tuple[str, ...]:
    """The embedded S3, on a Unix socket that only this user reaches."""
    beside = Path(sys.executable).with_name(_S3_PROGRAM)
    program = str(beside) if beside.exists() else shutil.which(_S3_PROGRAM)
    if program is None:
        raise CannotServe(
            f"The program of the embedded S3, {_S3_PROGRAM}, is neither at {beside} nor in PATH. Install Moorage "
            "from a wheel or, where Go is installed, from its sources (`make demo` does it), or use another S3 with "
            "--s3-endpoint."
        )
    return (
        program,
        *("--socket", str(settings.s3_socket), "--root", str(settings.data_dir / "s3")),
        *("--versions", str(settings.data_dir / "s3-versions")),
        *("--sidecar", str(settings.data_dir / "s3-metadata")),
        *("--account", settings.account_id),
    )
