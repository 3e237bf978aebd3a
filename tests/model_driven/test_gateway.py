"""Every case of an invocation over HTTP to a gateway: what it refuses and in which words, and what it lets pass."""

import asyncio
from urllib.parse import quote

import pytest
from botocore.model import OperationModel

from tests.gateway.harness import ContainerConnection, Gateway, request, start_gateway
from tests.gateway.test_enqueue import controller
from tests.model_driven import cases
from tests.model_driven.callers import Reply, read
from tests.model_driven.cases import Case
from tests.model_driven.services import decided, models

OPERATIONS = models("sagemaker-runtime")
NOT_THERE = ("EndpointName", "TargetVariant")
"""Members that name what is not there, unless they are given the one name that is."""

pytestmark = pytest.mark.timeout(600)  # many requests, on a machine that may be busy


def named(operation: OperationModel) -> str:
    return str(operation.name)


def is_sayable(case: Case) -> bool:
    """Whether HTTP can say it: headers are of one line, and have no spaces at their ends; a path has a name."""
    members = case.operation.input_shape.members
    name = case.path[-1] if case.path else "Body"
    value = case.document.get(name)
    if name == "Body" or value is None:
        return False
    if members[name].serialization["location"] == "uri":
        return value != ""
    text = str(value)
    return text == text.strip() and text.splitlines() == [text] * bool(text) and "\t" not in text


def written(case: Case) -> bytes:
    """The request. Only its headers that say who calls are signed: the others may hold any bytes."""
    asynchronous = case.operation.name == "InvokeEndpointAsync"
    document = {"EndpointName": "later" if asynchronous else "echo"}
    if asynchronous:
        document["InputLocation"] = "s3://bucket/input"
    document |= {name: value for name, value in case.document.items() if case.path == (name,)}
    path = case.operation.http["requestUri"].format(EndpointName=quote(document["EndpointName"], safe=""))
    headers = {
        member.serialization["name"]: str(document[name]).encode().decode("latin-1")
        for name, member in case.operation.input_shape.members.items()
        if member.serialization.get("location") == "header" and name in document
    }
    return request(b"" if asynchronous else b"hello", path, extra=headers)


async def call(gateway: Gateway, case: Case) -> Reply:
    message = await gateway.call(written(case))
    return read(case, message.status, message.headers, message.body)


async def prepared(gateway: Gateway) -> None:
    await gateway.echo()
    await controller(gateway)


@pytest.mark.parametrize("operation", OPERATIONS, ids=named)
async def test_what_is_valid_is_answered_as_decided(operation: OperationModel) -> None:
    statuses = decided("sagemaker-runtime", operation.name)
    async with start_gateway() as gateway:
        await prepared(gateway)
        for case in filter(is_sayable, cases.valid(operation)):
            reply = await call(gateway, case)
            assert "validation error" not in reply.message, (case, reply)
            if case.member in NOT_THERE or statuses[case.member] == "refused":
                assert (reply.status, reply.code) == (400, "ValidationError"), (case, reply)
            else:
                assert reply.status in (200, 202), (case, reply)


@pytest.mark.parametrize("operation", OPERATIONS, ids=named)
async def test_what_is_invalid_is_refused(operation: OperationModel) -> None:
    async with start_gateway() as gateway:
        await prepared(gateway)
        for case in filter(is_sayable, cases.invalid(operation)):
            reply = await call(gateway, case)
            assert (reply.status, reply.code) == (400, "ValidationError"), (case, reply)
            assert f"at '{case.where}' failed to satisfy constraint: " in reply.message, (case, reply)
            assert case.rule in reply.message, (case, reply)


@pytest.mark.parametrize("value", ["one", "", "1.5", "1_0", "١", "1e2", "0x1", "9" * 30])
@pytest.mark.parametrize("member", ["RequestTTLSeconds", "InvocationTimeoutSeconds"])
async def test_what_is_no_integer_is_refused(member: str, value: str) -> None:
    operation = next(each for each in OPERATIONS if each.name == "InvokeEndpointAsync")
    async with start_gateway() as gateway:
        await prepared(gateway)
        reply = await call(gateway, Case(operation, (member,), "type", {member: value}))
        assert (reply.status, reply.code) == (400, "ValidationError")
        assert f"at '{member[0].lower()}{member[1:]}' failed to satisfy constraint: " in reply.message


async def test_neither_a_session_nor_a_prefix_chooses_the_instance() -> None:
    both = asyncio.Barrier(2)

    async def answer_when_both_are_called(connection: ContainerConnection) -> None:
        await connection.request()
        await both.wait()
        await connection.reply(b"ok")

    async with start_gateway() as gateway:
        containers = [await gateway.container(answer_when_both_are_called) for _ in range(2)]
        gateway.route(*containers)
        headers = {"X-Amzn-SageMaker-Session-Id": "one", "X-Amzn-SageMaker-Prefix-Aware-Id": "one"}
        replies = await asyncio.gather(*(gateway.call(request(b"hello", headers=headers)) for _ in range(2)))
        assert [reply.body for reply in replies] == [b"ok", b"ok"]
        assert [container.connections for container in containers] == [1, 1]
