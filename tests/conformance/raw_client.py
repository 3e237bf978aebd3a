"""InvokeEndpoint over plain sockets: what boto3 would send, without a thread for each call."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from tests.conformance.targets import REGION, credentials
from tests.servers import MoorageServer


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def error(self) -> dict[str, Any]:
        """Of an error reply: its members, and its type as `Code`."""
        return {**json.loads(self.body), "Code": self.headers["x-amzn-errortype"]}


class RawClient:
    """Every call has a connection of its own."""

    def __init__(self, target: MoorageServer) -> None:
        self._url = target.url
        address = urlsplit(target.url)
        assert address.scheme == "http", "plain HTTP only"
        self._host, self._port, self._netloc = address.hostname, address.port or 80, address.netloc
        self._signer = SigV4Auth(credentials(target), "sagemaker", REGION)

    async def invoke(self, endpoint: str, body: bytes) -> Reply:
        """Raises an `OSError` or `asyncio.IncompleteReadError` when no whole reply comes."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(self._request(endpoint, body))
            return await _read_reply(reader)
        finally:
            writer.close()

    def _request(self, endpoint: str, body: bytes) -> bytes:
        path = f"/endpoints/{endpoint}/invocations"
        request = AWSRequest(method="POST", url=self._url + path, data=body)
        self._signer.add_auth(request)
        headers = {"Host": self._netloc, **request.headers, "Content-Length": str(len(body))}
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def _read_reply(reader: asyncio.StreamReader) -> Reply:
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers["content-length"]))
    return Reply(int(status.split()[1]), headers, body)
