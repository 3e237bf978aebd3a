"""The server's own log, beside callers and containers who would like to write it."""

import re
import socket
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from moorage.runtime.logs import CONTINUATION
from tests.servers import MoorageServer

FORGED = "2026-11-30T00:00:00+0000 controller ERROR all models were deleted"
OURS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} (moorage|controller|gateway) [A-Z]+ ")


def abandon_upload(server: MoorageServer, key: str) -> None:
    """Send half of an object, and go away when the server waits for the rest."""
    address = urlsplit(server.url)
    path = f"/bucket/{quote(key)}"
    request = AWSRequest(
        "PUT",
        f"{server.url}{path}",
        headers={
            "Content-Length": "100000",
            "X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD",
            "Expect": "100-continue",
        },
    )
    request.context["payload_signing_enabled"] = False
    S3SigV4Auth(
        Credentials(server.key.access_key_id, server.key.secret_access_key), "s3", "us-east-1"
    ).add_auth(request)
    lines = [f"PUT {path} HTTP/1.1", f"Host: {address.netloc}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    with closing(socket.create_connection((address.hostname, address.port))) as client:
        client.sendall("\r\n".join([*lines, "", ""]).encode())
        assert client.recv(1024).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"x" * 50_000)


def test_nobody_else_writes_lines_of_ours_and_abandoned_uploads_are_no_errors(tmp_path: Path) -> None:
    server = MoorageServer(tmp_path / "data").start()
    try:
        server.client("s3").create_bucket(Bucket="bucket")
        for number in range(30):
            abandon_upload(server, f"{number}\n{FORGED}\x1b[2J")
        server.create(
            "forger",
            {"code/inference.py": f"import os\nprint({FORGED!r} + '\\x1b[2J', flush=True)\nos._exit(3)\n"},
        )
        reason = server.wait_for("forger", "Failed")["FailureReason"]
        assert f"\n{FORGED}" in reason, "the container's last lines are in the reason"
    finally:
        server.ensure_stopped()
    lines = server.log.splitlines()
    assert any(line == f"{CONTINUATION}{FORGED}" for line in lines), "and the reason is in the log"
    assert FORGED not in lines
    assert all(OURS.match(line) or line.startswith(CONTINUATION) for line in lines), lines
    assert not any("\x1b" in line or (" ERROR " in line and OURS.match(line)) for line in lines), lines
