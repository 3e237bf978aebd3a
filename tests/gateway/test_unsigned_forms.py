"""Operations of STS that nobody signs, and other forms without a signature."""

import asyncio
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.gateway.harness import Gateway, Message, head

FORM = {"Host": "a", "Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
TOKEN = "x" * 100_000
SAYS = "This server does not have the operation {} of STS."


def form(body: bytes) -> bytes:
    return head("/", {**FORM, "Content-Length": str(len(body))}) + body


def code(reply: Message) -> str:
    return reply.body.partition(b"<Code>")[2].partition(b"</Code>")[0].decode()


@pytest.mark.parametrize(
    ("operation", "members"),
    [
        ("AssumeRoleWithWebIdentity", {"RoleSessionName": "session", "WebIdentityToken": "a.b.c"}),
        (
            "AssumeRoleWithSAML",
            {"PrincipalArn": f"arn:aws:iam::1:saml-provider/{'x' * 9}", "SAMLAssertion": TOKEN},
        ),
    ],
)
async def test_boto3_is_told_that_there_is_no_such_operation(
    gateway: Gateway, operation: str, members: dict[str, str]
) -> None:
    def call() -> Any:
        client = boto3.client(
            "sts",
            endpoint_url=f"http://127.0.0.1:{gateway.port}",
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}),
        )
        try:
            return client._make_api_call(operation, {"RoleArn": "arn:aws:iam::1:role/xxxxxxx", **members})
        finally:
            client.close()

    with pytest.raises(ClientError) as caught:
        await asyncio.to_thread(call)
    error = caught.value.response
    assert (error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"]) == ("InvalidAction", 400)
    assert error["Error"]["Message"] == SAYS.format(operation)


@pytest.mark.parametrize("place", ["first", "last", "middle", "alone"])
async def test_the_action_is_found_wherever_it_stands(gateway: Gateway, place: str) -> None:
    """The JavaScript SDK puts it last."""
    action, token = b"Action=AssumeRoleWithSAML", f"SAMLAssertion={TOKEN}".encode()
    parts = {
        "first": [action, token],
        "last": [token, action],
        "middle": [token, action, token],
        "alone": [action],
    }[place]
    client = await gateway.client()
    reply = await client.call(form(b"&".join(parts)))
    assert (reply.status, code(reply)) == (400, "InvalidAction")
    assert SAYS.format("AssumeRoleWithSAML").encode() in reply.body
    assert (await client.call(form(action))).status == 400, "the connection is kept"


async def test_an_action_may_come_in_pieces(gateway: Gateway) -> None:
    client = await gateway.client()
    whole = form(b"a=b&Action=AssumeRoleWithWebIdentity&c=d")
    for byte in whole[:-1]:
        client.send(bytes([byte]))
        await asyncio.sleep(0)
    client.send(whole[-1:])
    assert code(await client.reply()) == "InvalidAction"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"Action=GetCallerIdentity&Version=2011-06-15",
        b"Action=AssumeRoleWithSAMLs",
        b"xAction=AssumeRoleWithSAML",
        b"Token=Action=AssumeRoleWithSAML",
        b"Action=AssumeRole",
    ],
)
async def test_any_other_form_lacks_a_signature(gateway: Gateway, body: bytes) -> None:
    reply = await gateway.call(form(body))
    assert (reply.status, code(reply)) == (403, "MissingAuthenticationToken")


async def test_a_long_form_is_refused_by_its_head(gateway: Gateway) -> None:
    client = await gateway.client()
    client.send(head("/", {**FORM, "Content-Length": str(256 * 1024 + 1)}))
    assert code(await client.reply()) == "MissingAuthenticationToken"
