"""A gateway in a process of its own, to see how much memory it takes.

Usage: alone.py SETTINGS LISTENER CONTAINER_PORT
"""

import asyncio
import socket
import sys

import uvloop

from moorage.auth.access import Access
from moorage.auth.verifier import Verifier
from moorage.config import Settings
from moorage.gateway.s3.signing import S3Signer
from moorage.gateway.server import GatewayServer
from moorage.routing.table import route_document
from tests.gateway.harness import ACCOUNT, KEY, REGION, S3_ACCOUNTS


async def main(settings: Settings, listener: socket.socket, container_port: int) -> None:
    server = GatewayServer(
        settings=settings,
        verifier=Verifier({KEY.access_key_id: KEY}),
        access=Access(KEY),
        s3_signer=S3Signer(S3_ACCOUNTS),
        listener=listener,
    )
    instance = {"instance_id": "i-0", "host": "127.0.0.1", "port": container_port, "generation": 1}
    variant = {"name": "AllTraffic", "weight": 1.0, "container_hostname": "primary", "instances": [instance]}
    server.table.reset([route_document(account_id=ACCOUNT, name="echo", region=REGION, variants=[variant])])
    async with server.running(with_feed=False):
        await asyncio.Event().wait()


if __name__ == "__main__":
    _, settings, descriptor, port = sys.argv
    uvloop.run(main(Settings.from_json(settings), socket.socket(fileno=int(descriptor)), int(port)))
