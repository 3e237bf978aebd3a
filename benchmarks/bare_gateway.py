"""The gateway alone, with one endpoint `echo` and no controller: what stands between the client and the container.

Usage: python benchmarks/bare_gateway.py PORT CONTAINER_PORT [NETWORK]
"""

import asyncio
import json
import socket
import sys

import uvloop

from moorage.auth.access import Access
from moorage.auth.credentials import AccessKey
from moorage.auth.verifier import Verifier
from moorage.config import Settings
from moorage.gateway.s3.signing import S3Signer
from moorage.gateway.server import GatewayServer
from moorage.routing.table import route_document
from moorage.runtime.gateway_process import spare_the_collector
from moorage.storage.s3_accounts import S3Accounts

PATH = "/endpoints/echo/invocations"
BODY = json.dumps(
    {"instances": [[round(0.1 * i, 1) for i in range(28)]], "id": "echo-measured"}, separators=(",", ":")
)
KEY = AccessKey(
    access_key_id="AKIDEXAMPLE",
    secret_access_key="not-a-secret",
    account_id="000000000000",
    principal_arn="arn:aws:iam::000000000000:root",
    user_id="000000000000",
)
UNLIMITED = Settings(max_connections_per_client=0, max_concurrent_invocations_per_instance=0)
"""All clients of a benchmark have one address, and there is one instance, so neither limits them."""


def gateway(
    listener: socket.socket, container_port: int, settings: Settings = UNLIMITED, *, network: str = ""
) -> GatewayServer:
    verifier = Verifier({KEY.access_key_id: KEY})
    server = GatewayServer(
        settings=settings,
        verifier=verifier,
        access=Access(KEY),
        s3_signer=S3Signer(S3Accounts(b"a secret key of a benchmark")),
        listener=listener,
    )
    place = {"host": "127.0.0.1", "port": container_port, "network": network}
    instance = {"instance_id": "i-0", "generation": 1, **place}
    variant = {"name": "AllTraffic", "weight": 1.0, "container_hostname": "primary", "instances": [instance]}
    server.table.reset(
        [route_document(account_id=KEY.account_id, name="echo", region="us-east-1", variants=[variant])]
    )
    return server


async def serve_gateway(
    port: int, container_port: int, *, settings: Settings = UNLIMITED, network: str = ""
) -> None:
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    async with gateway(listener, container_port, settings, network=network).running(with_feed=False):
        spare_the_collector()
        await asyncio.Event().wait()


if __name__ == "__main__":
    port, container_port, *network = sys.argv[1:]
    uvloop.run(serve_gateway(int(port), int(container_port), network=network[0] if network else ""))
