"""What the gateway writes into the audit log, and what it leaves out."""

import json
from typing import Any

import pytest

from tests.gateway.harness import KEY, Gateway, head, request, signed, start_gateway

SECRET = KEY.secret_access_key


def lines(gateway: Gateway) -> list[dict[str, Any]]:
    file = gateway.settings.audit_file
    assert file is not None
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def authorization(text: str) -> bytes:
    return head("/endpoints/echo/invocations", {"Host": "a", "Authorization": text, "Content-Length": "0"})


async def test_what_a_controller_that_is_not_there_cannot_answer_has_failed(gateway: Gateway) -> None:
    headers = signed("/", headers={"X-Amz-Target": "SageMaker.DeleteEndpoint"})
    reply = await gateway.call(head("/", {**headers, "Content-Length": "0"}))
    assert reply.status == 503
    (line,) = lines(gateway)
    assert (line["eventName"], line["outcome"]) == ("DeleteEndpoint", "failed")
    assert (line["accessKeyId"], line["errorCode"]) == (KEY.access_key_id, "ServiceUnavailable")
    assert line["requestId"] == reply.headers["x-amzn-requestid"]


async def test_texts_beyond_ascii_are_told_as_they_were_sent(gateway: Gateway) -> None:
    headers = signed("/", headers={"X-Amz-Target": "SageMaker.Löschen", "User-Agent": "Müller/日本"})
    encoded = {name: value.encode().decode("latin-1") for name, value in headers.items()}
    assert (await gateway.call(head("/", {**encoded, "Content-Length": "0"}))).status in (403, 503)
    (line,) = lines(gateway)
    assert (line["eventName"], line["userAgent"]) == ("Löschen", "Müller/日本")


async def test_invocations_that_fail_for_other_reasons_have_no_line(gateway: Gateway) -> None:
    await gateway.echo()
    assert (await gateway.call(request())).status == 200
    assert (await gateway.call(request(path="/endpoints/other/invocations"))).status == 400
    assert lines(gateway) == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (f"Bearer {SECRET}", "IncompleteSignatureException"),
        (f"Basic a='{SECRET}'b", "IncompleteSignatureException"),
        (f"AWS4-HMAC-SHA256 Credential={SECRET}/20260101/r/s/aws4_request", "IncompleteSignatureException"),
        (
            f"AWS4-HMAC-SHA256 Credential=K, SignedHeaders=host, Signature={SECRET}",
            "IncompleteSignatureException",
        ),
        (f"{SECRET} Credential=K, SignedHeaders=host, Signature=1", "IncompleteSignatureException"),
        ("", "MissingAuthenticationTokenException"),
    ],
)
async def test_no_word_of_an_authorization_header_is_kept(gateway: Gateway, text: str, code: str) -> None:
    assert (await gateway.call(authorization(text))).status == 403
    (line,) = lines(gateway)
    assert (line["errorCode"], line["eventName"]) == (code, "InvokeEndpoint")
    assert SECRET not in json.dumps(line)
    assert line["errorMessage"]


async def test_a_secret_in_the_place_of_the_key_id_is_not_kept(gateway: Gateway) -> None:
    good = signed()
    mixed_up = good["Authorization"].replace(KEY.access_key_id, SECRET.replace("/", "x"))
    assert (
        await gateway.call(head("/endpoints/echo/invocations", {**good, "Authorization": mixed_up}))
    ).status == 403
    (line,) = lines(gateway)
    assert line["errorCode"] == "UnrecognizedClientException"
    assert "accessKeyId" not in line


async def test_what_is_no_request_is_refused_without_its_words(gateway: Gateway) -> None:
    reply = await gateway.call(
        f"GET ftp://a:{SECRET}@host/?X-Amz-Signature={SECRET} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    )
    assert reply.status == 400
    (line,) = lines(gateway)
    assert (line["outcome"], line["errorCode"]) == ("refused", "MalformedHttpRequestException")
    assert SECRET not in json.dumps(line)


async def test_a_signature_that_does_not_match_is_told_without_what_was_signed(gateway: Gateway) -> None:
    headers = signed(headers={"X-Amzn-SageMaker-Custom-Attributes": "private"})
    reply = await gateway.call(head("/endpoints/other/invocations", {**headers, "Content-Length": "0"}))
    assert b"private" in reply.body, "the client is shown what should have been signed"
    (line,) = lines(gateway)
    assert line["errorMessage"].startswith("The request signature we calculated does not match")
    assert "private" not in json.dumps(line)
    assert headers["Authorization"].rpartition("=")[2] not in json.dumps(line)


async def test_a_throttled_call_has_a_line_with_its_key() -> None:
    async with start_gateway(max_requests_per_second_per_key=0.001) as gateway:
        await gateway.echo()
        assert (await gateway.call(request())).status == 200
        assert lines(gateway) == []
        assert (await gateway.call(request())).error == "ThrottlingException"
        (line,) = lines(gateway)
        assert (line["eventName"], line["outcome"]) == ("InvokeEndpoint", "refused")
        assert (line["errorCode"], line["accessKeyId"]) == ("ThrottlingException", KEY.access_key_id)
