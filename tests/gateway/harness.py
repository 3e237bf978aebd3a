"""A real gateway in the test's event loop, clients that write bytes, and containers that do as they are told."""

import asyncio
import itertools
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from moorage.audit import AuditLog
from moorage.auth.access import Access
from moorage.auth.credentials import AccessKey
from moorage.auth.verifier import Verifier
from moorage.config import Settings
from moorage.gateway.front import GatewayFront
from moorage.gateway.s3.signing import S3Signer
from moorage.gateway.server import GatewayServer
from moorage.gateway.unverified import UnverifiedBodies
from moorage.routing.table import route_document
from moorage.storage.s3_accounts import S3Accounts

ACCOUNT = "000000000000"
REGION = "us-east-1"
KEY = AccessKey(
    access_key_id="AKIDEXAMPLE",
    secret_access_key="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    account_id=ACCOUNT,
    principal_arn=f"arn:aws:iam::{ACCOUNT}:root",
    user_id=ACCOUNT,
)
S3_ACCOUNTS = S3Accounts(b"the secret key of some data directory")
HEALTH = b"GET /_moorage/health HTTP/1.1\r\nHost: a\r\n\r\n"

Headers = Mapping[str, str]


def signed(
    path: str = "/endpoints/echo/invocations",
    body: bytes = b"",
    *,
    method: str = "POST",
    headers: Headers | None = None,
    service: str = "sagemaker",
    host: str = "localhost:8080",
) -> dict[str, str]:
    """The headers of a request as botocore signs it, now."""
    request = AWSRequest(method, f"http://{host}{path}", headers=dict(headers or {}), data=body)
    declared = any(name.lower() == "x-amz-content-sha256" for name in headers or {})
    signer = S3SigV4Auth if service == "s3" and not declared else SigV4Auth
    signer(Credentials(KEY.access_key_id, KEY.secret_access_key), service, REGION).add_auth(request)
    return {"Host": host, **dict(request.headers.items())}


def head(path: str, headers: Headers, *, method: str = "POST", version: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def request(
    body: bytes = b"",
    path: str = "/endpoints/echo/invocations",
    *,
    method: str = "POST",
    headers: Headers | None = None,
    extra: Headers | None = None,
    service: str = "sagemaker",
    version: str = "1.1",
) -> bytes:
    """A whole signed request. `headers` are signed, `extra` are not."""
    lines = signed(path, body, method=method, headers=headers, service=service)
    lines |= {"Content-Length": str(len(body)), **(extra or {})}
    return head(path, lines, method=method, version=version) + body


def chunked(*chunks: bytes, trailers: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailers + b"\r\n"


@dataclass(frozen=True)
class Message:
    """A request or a reply, taken apart. Header names are lower-case."""

    start: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def status(self) -> int:
        return int(self.start.split(" ")[1])

    @property
    def error(self) -> str | None:
        return self.headers.get("x-amzn-errortype")


async def read_message(reader: asyncio.StreamReader, *, has_body: bool = True) -> Message:
    """The next message of a connection. A reply without any framing is read to the connection's end."""
    start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")[:-4].split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        assert name.lower() not in headers, f"{name} is repeated"
        headers[name.lower()] = value.strip()
    body = b""
    if not has_body or " 100 " in start:
        return Message(start, headers)
    if headers.get("transfer-encoding") == "chunked":
        chunks = []
        while size := int(await reader.readuntil(b"\r\n"), 16):
            chunks.append((await reader.readexactly(size + 2))[:-2])
        await reader.readuntil(b"\r\n")
        body = b"".join(chunks)
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    elif start.startswith("HTTP/") and " 204 " not in start:
        body = await reader.read()
    return Message(start, headers, body)


class Client:
    """One connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self, *, has_body: bool = True) -> Message:
        return await read_message(self.reader, has_body=has_body)

    async def call(self, data: bytes) -> Message:
        self.send(data)
        return await self.reply()

    async def rest(self) -> bytes:
        """What still comes until the gateway closes the connection, by whatever means."""
        with suppress(ConnectionError):
            return await self.reader.read()
        return b""

    def close(self) -> None:
        self.writer.transport.abort()

    async def closed(self) -> None:
        """Close, and wait until the socket is."""
        self.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


class ContainerConnection:
    """A connection that the gateway made to a container."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number

    async def request(self) -> Message:
        return await read_message(self.reader)

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, body: bytes = b"", *, status: int = 200, headers: Headers | None = None) -> None:
        lines = {"Content-Length": str(len(body)), **(headers or {})}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        await self.write(f"HTTP/1.1 {status} Whatever\r\n{text}\r\n".encode("latin-1") + body)

    async def closed_by_gateway(self) -> None:
        """Wait until the gateway has closed its side."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Close with a reset instead of an orderly end."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[ContainerConnection], Awaitable[None]]


@dataclass
class Container:
    """A server that runs `script` on each connection. Exceptions of the connection's end are no error."""

    script: Script
    port: int = 0
    requests: list[Message] = field(default_factory=list)
    connections: int = 0
    ended: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    """The numbers of the connections whose script has ended."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = ContainerConnection(reader, writer, self.connections)
        try:
            await self.script(connection)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.ended.put_nowait(connection.number)
            writer.close()


@dataclass
class Gateway:
    server: GatewayServer
    front: GatewayFront
    settings: Settings
    port: int
    stack: AsyncExitStack
    internal_port: int = 0
    ids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    @property
    def bodies(self) -> UnverifiedBodies:
        return self.server.bodies

    async def client(self, *, receive_buffer: int | None = None) -> Client:
        client = await self.connect(receive_buffer=receive_buffer)
        self.stack.push_async_callback(client.closed)
        return client

    async def connect(self, *, receive_buffer: int | None = None, internal: bool = False) -> Client:
        """A client that the caller closes."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        port = self.internal_port if internal else self.port
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=4096 if receive_buffer else 2**20)
        return Client(reader, writer)

    async def call(self, data: bytes, *, internal: bool = False) -> Message:
        """One request on a connection of its own."""
        client = await self.connect(internal=internal)
        try:
            return await client.call(data)
        finally:
            await client.closed()

    async def container(self, script: Script) -> Container:
        container = Container(script)
        sockets = await self.listen(
            container, lambda cb: asyncio.start_server(cb, "127.0.0.1", 0, backlog=1024)
        )
        container.port = sockets[0].getsockname()[1]
        return container

    async def upstream(self, path: Path, script: Script) -> Container:
        """What stands behind one of the gateway's Unix sockets."""
        container = Container(script)
        await self.listen(container, lambda cb: asyncio.start_unix_server(cb, path))
        return container

    async def listen(
        self, container: Container, listen: Callable[[Any], Awaitable[asyncio.Server]]
    ) -> Sequence[socket.socket]:
        tasks: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.ensure_future(container.serve(reader, writer)))

        async def stop() -> None:
            server.close()
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception):
                    raise outcome

        server = await listen(connected)
        self.stack.push_async_callback(stop)
        return server.sockets

    def instance(self, container: Container | int, *, generation: int = 1, name: str = "") -> dict[str, Any]:
        port = container if isinstance(container, int) else container.port
        return {
            "instance_id": name or f"i-{next(self.ids)}",
            "host": "127.0.0.1",
            "port": port,
            "generation": generation,
        }

    def route(
        self,
        *instances: Container | int | dict[str, Any],
        name: str = "echo",
        variants: Sequence[dict[str, Any]] = (),
        **options: Any,
    ) -> None:
        """Publish an endpoint: with one variant of these instances, or with these variants."""
        each = [i if isinstance(i, dict) else self.instance(i) for i in instances]
        one = {"name": "AllTraffic", "weight": 1.0, "container_hostname": "primary", "instances": each}
        document = route_document(
            account_id=ACCOUNT, name=name, region=REGION, variants=variants or [one], **options
        )
        self.server.table.put(document)

    async def echo(self) -> Container:
        """A well-behaved container behind the endpoint `echo`."""
        container = await self.container(echo)
        self.route(container)
        return container

    async def echo_as(self, name: str) -> Container:
        """A well-behaved container behind another endpoint."""
        container = await self.container(echo)
        self.route(container, name=name)
        return container

    async def is_alive(self) -> bool:
        return (await self.call(HEALTH)).status == 200


async def echo(connection: ContainerConnection) -> None:
    """Answer every request with its own body."""
    while True:
        message = await connection.request()
        await connection.reply(message.body, headers={"Content-Type": "application/octet-stream"})


@asynccontextmanager
async def start_gateway(
    *, internal: bool = False, neighbours: Sequence[socket.socket] = (), **settings: Any
) -> AsyncIterator[Gateway]:
    """A gateway without a controller; `internal` gives it another listener, for the server itself. When the block
    ends, nothing may be left reserved."""
    limits: dict[str, Any] = {
        "max_body_bytes": 100_000,
        "max_response_bytes": 100_000,
        "max_header_bytes": 8192,
        "max_headers": 32,
        "drain_timeout_seconds": 10.0,
    }
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-")))
        options = Settings(data_dir=folder, **{**limits, **settings})
        options.run_dir.mkdir()
        listener = socket.create_server(("127.0.0.1", 0))
        own_listener = socket.create_server(("127.0.0.1", 0)) if internal else None
        verifier = Verifier(
            {KEY.access_key_id: KEY},
            regions=frozenset((REGION,)),
            allow_unsigned_payload=options.allow_unsigned_payload,
        )
        server = GatewayServer(
            settings=options,
            verifier=verifier,
            access=Access(KEY),
            s3_signer=S3Signer(S3_ACCOUNTS),
            listener=listener,
            internal=own_listener,
            neighbours=neighbours,
            audit=AuditLog(options.audit_file),
        )
        server.table.reset([])
        async with server.running(with_feed=False) as front, AsyncExitStack() as inner:
            gateway = Gateway(server, front, options, listener.getsockname()[1], inner)
            if own_listener is not None:
                gateway.internal_port = own_listener.getsockname()[1]
            yield gateway
        assert "0 connections" in repr(server)
        assert "0 outstanding" in repr(server)
