"""Every refusal of the three operations has an `ErrorCode`: AWS's where it was captured, else our own."""

import asyncio
import json
import re
from pathlib import Path

import pytest

import moorage
from moorage import errors
from moorage.wire import faults
from tests.gateway.harness import (
    ContainerConnection,
    Gateway,
    Headers,
    echo,
    request,
    start_gateway,
)
from tests.gateway.test_dispatch import refused_port

SYNC, STREAM, ASYNC = "invocations", "invocations-response-stream", "async-invocations"
P = "X-Amzn-SageMaker-"
INPUT = {f"{P}InputLocation": "s3://b/k"}


async def refuse(connection: ContainerConnection) -> None:
    """A container that answers the status that it is sent as a body."""
    while True:
        await connection.reply(b"no", status=int((await connection.request()).body))


async def endpoints(gateway: Gateway) -> None:
    """One endpoint for each state that an invocation can meet."""
    gateway.route(await gateway.container(echo), name="echo")
    gateway.route(await gateway.container(refuse), name="refuse")
    gateway.route(name="later", asynchronous=True)
    gateway.route(name="making", provisioning=True)
    gateway.route(refused_port(gateway), name="down")
    gateway.route(name="empty")


@pytest.mark.parametrize(
    ("operation", "name", "body", "headers", "status", "error", "code"),
    [
        # not valid
        (SYNC, "-", b"x", {}, 400, "ValidationError", "VALIDATION_FAILED"),
        (STREAM, "-", b"x", {}, 400, "ValidationError", "VALIDATION_FAILED"),
        (ASYNC, "-", b"x", {}, 400, "ValidationError", "VALIDATION_FAILED"),
        (SYNC, "echo", b"x", {f"{P}Inference-Id": " "}, 400, "ValidationError", "VALIDATION_FAILED"),
        (
            STREAM,
            "echo",
            b"x",
            {f"{P}Session-Id": "NEW_SESSION"},
            400,
            "ValidationError",
            "VALIDATION_FAILED",
        ),
        (ASYNC, "later", b"x", {f"{P}RequestTTLSeconds": "0"}, 400, "ValidationError", "VALIDATION_FAILED"),
        (ASYNC, "later", b"x" * 128_001, {}, 400, "ValidationError", "VALIDATION_FAILED"),
        (ASYNC, "later", b"x", INPUT, 400, "ValidationError", "INPUT_LOCATION_AND_BODY_NOT_ALLOWED"),
        (ASYNC, "later", b"", {}, 400, "ValidationError", "INPUT_LOCATION_OR_BODY_MISSING"),
        # no such endpoint, or of another kind
        (SYNC, "none", b"x", {}, 400, "ValidationError", "ENDPOINT_NOT_FOUND"),
        (STREAM, "none", b"x", {}, 400, "ValidationError", "ENDPOINT_NOT_FOUND"),
        (ASYNC, "none", b"x", {}, 400, "ValidationError", "ENDPOINT_NOT_FOUND"),
        (SYNC, "later", b"x", {}, 400, "ValidationError", "ENDPOINT_IS_ASYNCHRONOUS"),
        (STREAM, "later", b"x", {}, 400, "ValidationError", "ENDPOINT_IS_ASYNCHRONOUS"),
        (ASYNC, "echo", b"x", {}, 400, "ValidationError", "ENDPOINT_IS_NOT_ASYNCHRONOUS"),
        # what the endpoint does not have
        *(
            (operation, "echo", b"x", {f"{P}{header}": "x"}, 400, "ValidationError", code)
            for operation in (SYNC, STREAM)
            for header, code in (
                ("Inference-Component", "INFERENCE_COMPONENT_NAME_NOT_ALLOWED"),
                ("Target-Container-Hostname", "TARGET_CONTAINER_HOSTNAME_HEADER_NOT_SUPPORTED"),
                ("Target-Variant", "TARGET_VARIANT_NOT_FOUND"),
            )
        ),
        *(
            (SYNC, "echo", b"x", {f"{P}{header}": "x"}, 400, "ValidationError", code)
            for header, code in (
                ("Target-Model", "TARGET_MODEL_HEADER_NOT_SUPPORTED"),
                ("Enable-Explanations", "ENABLE_EXPLANATIONS_HEADER_NOT_SUPPORTED"),
            )
        ),
        # nobody to do it
        (SYNC, "making", b"x", {}, 429, "ModelNotReadyException", "MODEL_NOT_READY"),
        (STREAM, "making", b"x", {}, 503, "ServiceUnavailable", "SERVICE_UNAVAILABLE"),
        (SYNC, "empty", b"x", {}, 503, "ServiceUnavailable", "SERVICE_UNAVAILABLE"),
        (STREAM, "down", b"x", {}, 503, "ServiceUnavailable", "SERVICE_UNAVAILABLE"),
        # the container
        (SYNC, "refuse", b"400", {}, 424, "ModelError", "CLIENT_ERROR_FROM_MODEL"),
        (SYNC, "refuse", b"500", {}, 424, "ModelError", "INTERNAL_FAILURE_FROM_MODEL"),
        (STREAM, "refuse", b"404", {}, 424, "ModelError", "CLIENT_ERROR_FROM_MODEL"),
        (STREAM, "refuse", b"503", {}, 424, "ModelError", "INTERNAL_FAILURE_FROM_MODEL"),
    ],
)
async def test_a_refusal_has_its_code(
    gateway: Gateway,
    operation: str,
    name: str,
    body: bytes,
    headers: Headers,
    status: int,
    error: str,
    code: str,
) -> None:
    await endpoints(gateway)
    reply = await gateway.call(request(body, f"/endpoints/{name}/{operation}", headers=headers))
    assert (reply.status, reply.error) == (status, error)
    document = json.loads(reply.body)
    assert document["ErrorCode"] == code
    assert document["Message"]


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (SYNC, "INTERNAL_DEPENDENCY_FAILED"),
        (STREAM, "SERVICE_UNAVAILABLE"),
        (ASYNC, "SERVICE_UNAVAILABLE"),
    ],
)
async def test_without_a_routing_table(gateway: Gateway, operation: str, code: str) -> None:
    gateway.server.table.complete = False
    reply = await gateway.call(request(b"x", f"/endpoints/echo/{operation}"))
    assert json.loads(reply.body)["ErrorCode"] == code


async def test_a_full_endpoint() -> None:
    at_work = asyncio.Event()

    async def stuck(connection: ContainerConnection) -> None:
        await connection.request()
        at_work.set()
        await connection.closed_by_gateway()

    async with start_gateway(max_concurrent_invocations_per_instance=1) as gateway:
        gateway.route(await gateway.container(stuck))
        waiting = await gateway.client()
        waiting.send(request(b"x"))
        await at_work.wait()
        reply = await gateway.call(request(b"x"))
        assert (reply.status, json.loads(reply.body)["ErrorCode"]) == (503, "SERVICE_UNAVAILABLE")


def test_every_error_of_an_operation_has_a_code() -> None:
    kinds = errors.InvocationError.__subclasses__()
    assert {kind.code for kind in kinds} >= {"ValidationError", "ModelError", "ServiceUnavailable"}
    for kind in kinds:
        own = json.loads(faults.render(kind("text"))[2])
        assert own == {"Message": "text", "ErrorCode": kind.error_code}
        given = json.loads(faults.render(kind("text", ErrorCode="GIVEN"))[2])
        assert given["ErrorCode"] == "GIVEN"
        assert "ErrorCode" not in json.loads(faults.render(kind("text"), control_plane=True)[2])


def test_codes_are_spelt_as_awss() -> None:
    source = Path(moorage.__file__).parent
    codes = {
        code
        for folder in ("gateway", "routing", "wire", "async_inference", "controller")
        for file in (source / folder).glob("*.py")
        for code in re.findall(r'ErrorCode="(\w+)"', file.read_text())
    }
    assert "TARGET_MODEL_HEADER_NOT_SUPPORTED" in codes
    assert all(re.fullmatch(r"[A-Z]+(_[A-Z]+)+", code) for code in codes)
