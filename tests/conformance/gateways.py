"""A gateway within the test, without a controller: for the states a whole server is in too briefly to be met."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from moorage.auth.access import Access
from moorage.auth.credentials import AccessKey
from moorage.auth.verifier import Verifier
from moorage.config import Settings
from moorage.gateway.s3.signing import S3Signer
from moorage.gateway.server import GatewayServer
from moorage.routing.table import route_document
from moorage.storage.s3_accounts import S3Accounts
from tests.servers import ACCOUNT

_KEY = AccessKey(
    access_key_id="AKIAEXAMPLE",
    secret_access_key="not-secret",
    account_id=ACCOUNT,
    principal_arn=f"arn:aws:iam::{ACCOUNT}:root",
    user_id=ACCOUNT,
)


@dataclass(kw_only=True)
class Gateway:
    """A running gateway, and boto3's way to it. The client blocks, so it works in a thread."""

    server: GatewayServer
    url: str

    async def invoke(self, **members: Any) -> dict[str, Any]:
        """InvokeEndpoint; the reply's `Body` has been read."""

        def call() -> dict[str, Any]:
            client = boto3.client(
                "sagemaker-runtime",
                endpoint_url=self.url,
                region_name="us-east-1",
                aws_access_key_id=_KEY.access_key_id,
                aws_secret_access_key=_KEY.secret_access_key,
                config=Config(retries={"total_max_attempts": 1}),
            )
            try:
                reply: dict[str, Any] = client.invoke_endpoint(**members)
                return {**reply, "Body": reply["Body"].read()}
            finally:
                client.close()

        return await asyncio.to_thread(call)


@asynccontextmanager
async def gateway(
    data_dir: Path, routes: Iterable[Mapping[str, Any]] | None, **settings: Any
) -> AsyncIterator[Gateway]:
    """`routes` None: the routing table has never arrived."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = GatewayServer(
        settings=Settings(data_dir=data_dir, **settings),
        verifier=Verifier({_KEY.access_key_id: _KEY}),
        access=Access(_KEY),
        s3_signer=S3Signer(S3Accounts(b"a secret key of a test")),
        listener=listener,
    )
    if routes is not None:
        server.table.reset(routes)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with server.running(with_feed=False):
        yield Gateway(server=server, url=url)


def route(name: str, *ports: int, **members: Any) -> dict[str, Any]:
    """An endpoint of one variant, with an instance on each port."""
    instances = [
        {"instance_id": f"i-{port}", "host": "127.0.0.1", "port": port, "generation": 1} for port in ports
    ]
    variant = {
        "name": "AllTraffic",
        "weight": 1.0,
        "container_hostname": "primary",
        "instances": instances,
    }
    return route_document(account_id=ACCOUNT, name=name, region="us-east-1", variants=[variant], **members)


@dataclass
class Container:
    """A container as bytes: keeps what it is sent, and answers whatever `reply` makes of it."""

    reply: Callable[[bytes], bytes]
    port: int = 0
    requests: list[bytes] = field(default_factory=list)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Container"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            )
            self.requests.append(head + await reader.readexactly(length))
            writer.write(self.reply(self.requests[-1]))
            await writer.drain()
        finally:
            writer.close()
