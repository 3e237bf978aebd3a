"""Bodies in signed chunks, as SDKs for Java and others send them where there is no TLS."""

import base64
import hashlib
import hmac
import zlib
from collections.abc import Callable

import pytest

from moorage.auth import sigv4
from tests.gateway.harness import KEY, ContainerConnection, Gateway, Message, head, signed

EMPTY = hashlib.sha256(b"").hexdigest()
BODY = bytes(range(256)) * 300
PIECES = [BODY[:65536], BODY[65536:], b""]
CHECKSUM = base64.b64encode(zlib.crc32(BODY).to_bytes(4, "big")).decode()


def upload(
    *,
    trailer: bool = False,
    pieces: list[bytes] = PIECES,
    spoil: Callable[[bytes], bytes] = lambda body: body,
    checksum: str = CHECKSUM,
    length: int = len(BODY),
) -> bytes:
    """A whole request. `spoil` changes the body after it was signed."""
    headers = {
        "x-amz-content-sha256": f"STREAMING-AWS4-HMAC-SHA256-PAYLOAD{'-TRAILER' if trailer else ''}",
        "x-amz-decoded-content-length": str(length),
        "content-encoding": "aws-chunked",
        **({"x-amz-trailer": "x-amz-checksum-crc32"} if trailer else {}),
    }
    lines = signed("/bucket/key", method="PUT", service="s3", headers=headers)
    credential = lines["Authorization"].split("Credential=")[1].split(",")[0]
    scope = sigv4.parse_credential(credential)
    key = sigv4.signing_key(KEY.secret_access_key, scope)
    date, previous = lines["X-Amz-Date"], lines["Authorization"].rpartition("Signature=")[2]

    def sign(*parts: str) -> str:
        return hmac.new(key, "\n".join(parts).encode(), "sha256").hexdigest()

    body = b""
    for piece in pieces:
        digest = hashlib.sha256(piece).hexdigest()
        previous = sign("AWS4-HMAC-SHA256-PAYLOAD", date, scope.text, previous, EMPTY, digest)
        body += b"%x;chunk-signature=%b\r\n" % (len(piece), previous.encode())
        body += piece + b"\r\n" if piece else b""
    if trailer:
        line = f"x-amz-checksum-crc32:{checksum}"
        digest = hashlib.sha256(f"{line}\n".encode()).hexdigest()
        signature = sign("AWS4-HMAC-SHA256-TRAILER", date, scope.text, previous, digest)
        body += f"{line}\r\nx-amz-trailer-signature:{signature}\r\n".encode()
    body = spoil(body + b"\r\n")
    return head("/bucket/key", {**lines, "Content-Length": str(len(body))}, method="PUT") + body


@pytest.fixture
async def arrived(gateway: Gateway) -> list[Message]:
    seen: list[Message] = []

    async def script(connection: ContainerConnection) -> None:
        while True:
            seen.append(await connection.request())
            await connection.reply()

    await gateway.upstream(gateway.settings.s3_socket, script)
    return seen


async def test_they_arrive_without_chunks(gateway: Gateway, arrived: list[Message]) -> None:
    assert (await gateway.call(upload())).status == 200
    [request] = arrived
    assert request.body == BODY
    assert request.headers["content-length"] == str(len(BODY))
    assert request.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert not {"content-encoding", "x-amz-decoded-content-length"} & request.headers.keys()


async def test_with_a_trailer_they_arrive_in_the_same_chunks_without_signatures(
    gateway: Gateway, arrived: list[Message]
) -> None:
    assert (await gateway.call(upload(trailer=True))).status == 200
    [request] = arrived
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in PIECES[:-1])
    assert request.body == chunks + f"0\r\nx-amz-checksum-crc32:{CHECKSUM}\r\n\r\n".encode()
    assert request.headers["x-amz-content-sha256"] == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    assert request.headers["x-amz-trailer"] == "x-amz-checksum-crc32"


@pytest.mark.parametrize("trailer", [False, True])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: body.replace(b"\x01\x02\x03", b"\x01\x02\x04", 1),
        lambda body: body.replace(b"chunk-signature=", b"chunk-signature=0", 1),
        lambda body: body.replace(b";chunk-signature=", b";other=", 1),
        lambda body: body[: body.rindex(b"\r\n0;") + 4] + b"chunk-signature=" + b"0" * 64 + b"\r\n\r\n",
    ],
    ids=["a byte", "a signature", "no signature", "the last signature"],
)
async def test_what_was_not_signed_never_arrives_whole(
    gateway: Gateway, arrived: list[Message], trailer: bool, spoil: Callable[[bytes], bytes]
) -> None:
    reply = await gateway.call(upload(trailer=trailer, spoil=spoil))
    assert (reply.status, b"<Code>SignatureDoesNotMatch</Code>" in reply.body) == (403, True)
    assert not arrived


async def test_a_trailer_that_was_changed_never_arrives(gateway: Gateway, arrived: list[Message]) -> None:
    reply = await gateway.call(
        upload(trailer=True, spoil=lambda body: body.replace(CHECKSUM.encode(), b"AAAAAA=="))
    )
    assert (reply.status, b"<Code>SignatureDoesNotMatch</Code>" in reply.body) == (403, True)
    assert not arrived


@pytest.mark.parametrize("length", [len(BODY) - 1, len(BODY) + 1])
async def test_a_body_has_the_length_that_was_signed(
    gateway: Gateway, arrived: list[Message], length: int
) -> None:
    assert (await gateway.call(upload(length=length))).status == 400
    assert not arrived


async def test_chunks_left_out_are_missed(gateway: Gateway, arrived: list[Message]) -> None:
    """Their signatures are a chain."""

    def without_the_first(body: bytes) -> bytes:
        return body[body.index(PIECES[0][-10:] + b"\r\n") + 12 :]

    reply = await gateway.call(upload(spoil=without_the_first, length=len(PIECES[1])))
    assert reply.status in (400, 403)
    assert not arrived
