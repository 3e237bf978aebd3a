"""InvokeEndpoint: every member in and out, every limit, every error, through boto3."""

import hashlib
import io
import json
import os
import random
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError

from moorage.routing.table import RoutingTable
from tests.conformance import members
from tests.conformance.gateways import Container, gateway, route
from tests.conformance.members import covers
from tests.conformance.targets import REGION, closed, credentials, model, unique
from tests.servers import ACCOUNT, MoorageServer, eventually

MIB = 1024 * 1024
ORDER = "application/x-order"
RAW = "application/octet-stream"


def order(runtime: Any, endpoint: str, **what: Any) -> Any:
    """Tell the model `echo` what to answer."""
    return runtime.invoke_endpoint(EndpointName=endpoint, ContentType=ORDER, Body=json.dumps(what))


def seen(runtime: Any, endpoint: str, **given: Any) -> dict[str, Any]:
    """What reached the model."""
    reply = runtime.invoke_endpoint(**{"EndpointName": endpoint, "Body": b"", **given})
    document: dict[str, Any] = json.loads(reply["Body"].read())
    return document


def log_group(endpoint: str, account_id: str) -> str:
    return f"arn:aws:logs:{REGION}:{account_id}:log-group:/aws/sagemaker/Endpoints/{endpoint}"


# --- what reaches the container ------------------------------------------------------------------------


@covers("input.EndpointName", "input.Body", "output.Body", "output.ContentType")
@pytest.mark.parametrize(
    "body",
    [b"", b"\0", b"text", bytes(range(256)) * 256, random.Random(1).randbytes(6 * MIB)],
    ids=["empty", "one byte", "text", "binary", "6 MiB"],
)
def test_a_body_goes_in_and_out_byte_for_byte(runtime: Any, echo: str, body: bytes) -> None:
    reply = runtime.invoke_endpoint(EndpointName=echo, Body=body, Accept=RAW)
    assert reply["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert reply["ResponseMetadata"]["RequestId"]
    assert reply["ContentType"] == RAW
    assert reply["Body"].read() == body


@pytest.mark.parametrize(
    "source",
    [bytearray, lambda data: data.decode("ascii"), io.BytesIO],
    ids=["bytearray", "str", "file object"],
)
def test_a_body_may_be_anything_that_boto3_takes(
    runtime: Any, echo: str, source: Callable[[bytes], Any]
) -> None:
    data = b"0123456789" * 50_000
    saw = seen(runtime, echo, Body=source(data), ContentType=RAW)
    assert (saw["length"], saw["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_a_body_may_be_an_open_file(runtime: Any, echo: str, tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"from a file")
    with path.open("rb") as file:
        assert seen(runtime, echo, Body=file)["sha256"] == hashlib.sha256(b"from a file").hexdigest()


@covers("input.ContentType", "input.Accept", "input.CustomAttributes", "input.InferenceId", "input.SessionId")
@pytest.mark.parametrize(
    ("member", "header", "value"),
    [
        ("ContentType", "content-type", "text/csv; charset=utf-8"),
        ("Accept", "accept", "application/json, */*;q=0.1"),
        ("CustomAttributes", "x-amzn-sagemaker-custom-attributes", "a=1; b='two', c~"),
        ("InferenceId", "x-amzn-sagemaker-inference-id", "an id (with spaces)"),
        ("SessionId", "x-amzn-sagemaker-session-id", "session-1"),
        ("SessionId", "x-amzn-sagemaker-session-id", "NEW_SESSION"),
    ],
)
def test_a_member_reaches_the_container(
    runtime: Any, echo: str, member: str, header: str, value: str
) -> None:
    assert seen(runtime, echo, **{member: value})["headers"][header] == value


def test_a_member_that_is_not_given_does_not_reach_the_container(runtime: Any, echo: str) -> None:
    assert seen(runtime, echo)["headers"] == {"x-amzn-sagemaker-forwarded-api": "InvokeEndpoint"}


@covers("input.PrefixAwareId")
def test_a_prefix_aware_id_is_for_routing_only(runtime: Any, echo: str) -> None:
    saw = seen(runtime, echo, PrefixAwareId="prefix")
    assert "prefix" not in saw["headers"].values()


async def test_nothing_but_the_members_reaches_the_container(tmp_path: Path) -> None:
    """Byte for byte, and so without `Authorization`, `User-Agent` and what else SDKs send."""
    async with Container(lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").running() as container:
        async with gateway(tmp_path, [route("e", container.port)]) as front:
            await front.invoke(EndpointName="e", Body=b"body", ContentType="text/csv", PrefixAwareId="p")
        assert container.requests == [
            b"POST /invocations HTTP/1.1\r\n"
            b"Host: 127.0.0.1:%d\r\n"
            b"Content-Type: text/csv\r\n"
            b"X-Amzn-SageMaker-Forwarded-Api: InvokeEndpoint\r\n"
            b"Content-Length: 4\r\n\r\nbody" % container.port
        ]


@covers("input.TargetVariant", "output.InvokedProductionVariant")
def test_target_variant_overrides_the_weights(runtime: Any, echo: str) -> None:
    def invoked(**given: Any) -> Any:
        return runtime.invoke_endpoint(EndpointName=echo, Body=b"", **given)["InvokedProductionVariant"]

    assert {invoked() for _ in range(5)} == {"Main"}
    assert {invoked(TargetVariant="Other") for _ in range(5)} == {"Other"}


# --- what comes back -----------------------------------------------------------------------------------


@covers("output.CustomAttributes", "output.NewSessionId", "output.ClosedSessionId")
@pytest.mark.parametrize(
    ("header", "member", "value"),
    [
        ("X-Amzn-SageMaker-Custom-Attributes", "CustomAttributes", "trace=1; b"),
        ("X-Amzn-SageMaker-New-Session-Id", "NewSessionId", "s-1; Expires=2030-01-02T03:04:05Z"),
        # LMI containers announce a session under the name of the request's header.
        ("X-Amzn-SageMaker-Session-Id", "NewSessionId", "s-1; Expires=2030-01-02T03:04:05Z"),
        ("X-Amzn-SageMaker-Closed-Session-Id", "ClosedSessionId", "s-1"),
    ],
)
def test_a_header_of_the_container_comes_back_as_a_member(
    runtime: Any, echo: str, header: str, member: str, value: str
) -> None:
    assert order(runtime, echo, headers={header: value})[member] == value


def test_custom_attributes_are_not_echoed(runtime: Any, echo: str) -> None:
    reply = runtime.invoke_endpoint(EndpointName=echo, Body=b"", CustomAttributes="mine")
    assert not {"CustomAttributes", "NewSessionId", "ClosedSessionId"} & set(reply)


def test_the_content_type_comes_from_the_container(runtime: Any, echo: str) -> None:
    assert order(runtime, echo, content_type="text/x; charset=latin-1")["ContentType"] == (
        "text/x; charset=latin-1"
    )


def test_every_success_of_the_container_is_a_200(runtime: Any, echo: str) -> None:
    reply = order(runtime, echo, status=201, body="created")
    assert reply["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert reply["Body"].read() == b"created"


@pytest.mark.parametrize("stream", [False, True], ids=["in one piece", "in chunks"])
def test_a_response_of_six_mib_is_not_too_large(runtime: Any, echo: str, stream: bool) -> None:
    assert len(order(runtime, echo, bytes=6 * MIB, stream=stream)["Body"].read()) == 6 * MIB


@pytest.mark.parametrize(
    "framing",
    [b"Content-Length: 2\r\n\r\nhi", b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", b"\r\nhi"],
)
async def test_only_known_headers_of_the_container_come_back(tmp_path: Path, framing: bytes) -> None:
    reply = b"HTTP/1.1 200 OK\r\nServer: secret\r\nSet-Cookie: a=b\r\nX-Amzn-SageMaker-New: n\r\n" + framing
    async with (
        Container(lambda _: reply).running() as container,
        gateway(tmp_path, [route("e", container.port)]) as front,
    ):
        answer = await front.invoke(EndpointName="e", Body=b"")
    assert answer["Body"] == b"hi"
    assert "ContentType" not in answer
    assert answer["ResponseMetadata"]["HTTPHeaders"].keys() == {
        "date",
        "content-length",
        "x-amzn-requestid",
        "x-amzn-invoked-production-variant",
    }


# --- limits --------------------------------------------------------------------------------------------


def _given(echo: str, name: str, value: str) -> dict[str, Any]:
    return {"EndpointName": echo, "Body": b"", name: value}


@covers("error.ValidationError", "error.ValidationError.Message")
@pytest.mark.parametrize("name", members.limited())
def test_values_at_the_limits_are_accepted(runtime: Any, echo: str, name: str) -> None:
    for value in members.acceptable(name):
        try:
            runtime.invoke_endpoint(**_given(echo, name, value))
        except runtime.exceptions.ValidationError as error:
            # This endpoint may not have what the member names, but its value is well formed.
            assert "failed to satisfy constraint" not in str(error)


@pytest.mark.parametrize("name", members.limited())
def test_values_beyond_the_limits_are_refused(runtime: Any, echo: str, name: str) -> None:
    for value, rule in members.unacceptable(name):
        with pytest.raises(runtime.exceptions.ValidationError) as caught:
            runtime.invoke_endpoint(**_given(echo, name, value))
        error = caught.value.response
        assert error["ResponseMetadata"]["HTTPStatusCode"] == 400
        assert error["Error"]["Message"] == members.complaint(name, value, rule)


@pytest.mark.parametrize(
    "name",
    [n for n in members.limited() if members.OPERATION.input_shape.members[n].metadata.get("min", 0) > 0],
)
def test_values_that_are_too_short_are_refused(target: MoorageServer, echo: str, name: str) -> None:
    """By the client first; so the header is emptied behind its back."""
    runtime = target.client("sagemaker-runtime")
    with pytest.raises(ParamValidationError):
        runtime.invoke_endpoint(**_given(echo, name, ""))
    header = members.OPERATION.input_shape.members[name].serialization["name"]
    _set_header(runtime, header, "")
    with pytest.raises(runtime.exceptions.ValidationError) as caught:
        runtime.invoke_endpoint(EndpointName=echo, Body=b"")
    key = name[0].lower() + name[1:]
    rule = "Member must have length greater than or equal to 1"
    assert f"Value '' at '{key}' failed to satisfy constraint: {rule}" in str(caught.value)


def test_all_broken_constraints_are_reported_at_once(runtime: Any, echo: str) -> None:
    with pytest.raises(runtime.exceptions.ValidationError) as caught:
        runtime.invoke_endpoint(EndpointName="-", Body=b"", TargetVariant="_" * 64, InferenceId="i" * 65)
    message = caught.value.response["Error"]["Message"]
    assert message.startswith("4 validation errors detected: Value '-' at 'endpointName' ")
    assert message.count("at 'targetVariant'") == 2
    assert message.count("at 'inferenceId'") == 1


def test_the_message_of_an_error_keeps_to_its_own_limit(runtime: Any, echo: str) -> None:
    limit = members.OPERATION.error_shapes[0].members["Message"].metadata["max"]
    with pytest.raises(runtime.exceptions.ValidationError) as caught:
        runtime.invoke_endpoint(EndpointName=echo, Body=b"", ContentType="t" * 8000)
    assert len(caught.value.response["Error"]["Message"]) <= limit


def test_headers_that_are_no_members_are_ignored(target: MoorageServer, echo: str) -> None:
    """Newer SDKs send members that this server does not know."""
    runtime = target.client("sagemaker-runtime")
    _set_header(runtime, "X-Amzn-SageMaker-Of-Tomorrow", "é" * 2000)
    assert "x-amzn-sagemaker-of-tomorrow" not in seen(runtime, echo)["headers"]


def _set_header(runtime: Any, name: str, value: str) -> None:
    def change(request: Any, **_: Any) -> None:
        request.headers[name] = value

    runtime.meta.events.register("before-sign.sagemaker-runtime.InvokeEndpoint", change)


@covers("error.RequestEntityTooLargeException")
def test_a_body_over_six_mib_is_refused(runtime: Any, echo: str) -> None:
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint(EndpointName=echo, Body=bytes(6 * MIB + 1))
    _assert_error(caught.value, 413, "RequestEntityTooLargeException")
    assert caught.value.response["Error"]["Message"] == "HTTP content length exceeded 6291456 bytes."


# --- what an endpoint does not have --------------------------------------------------------------------


@covers(
    "input.TargetModel",
    "input.InferenceComponentName",
    "input.TargetContainerHostname",
    "input.EnableExplanations",
)
@pytest.mark.parametrize(
    ("member", "value", "message"),
    [
        (
            "TargetModel",
            "one.tar.gz",
            "Endpoint {} is not a multi-model endpoint and does not support target model header.",
        ),
        (
            "InferenceComponentName",
            "component",
            "Inference Component Name header is not allowed for endpoints to which you dont plan to deploy "
            "inference components. Please remove the Inference Component Name header and try again.",
        ),
        (
            "TargetContainerHostname",
            "second",
            "Endpoint {} is not a multi-container endpoint with direct invocation and does not support target "
            "container hostname header.",
        ),
        (
            "EnableExplanations",
            "`true`",
            "Endpoint {} has no ExplainerConfig and does not support enable explanations header.",
        ),
    ],
)
def test_an_endpoint_refuses_what_it_does_not_have(
    runtime: Any, echo: str, member: str, value: str, message: str
) -> None:
    with pytest.raises(runtime.exceptions.ValidationError) as caught:
        runtime.invoke_endpoint(EndpointName=echo, Body=b"", **{member: value})
    assert caught.value.response["Error"]["Message"] == message.format(echo)


def test_an_unknown_variant_is_refused(runtime: Any, echo: str) -> None:
    with pytest.raises(runtime.exceptions.ValidationError, match="Variant Third not found for endpoint "):
        runtime.invoke_endpoint(EndpointName=echo, Body=b"", TargetVariant="Third")


def test_an_unknown_endpoint_is_refused(runtime: Any, account_id: str) -> None:
    name = unique("missing")
    with pytest.raises(runtime.exceptions.ValidationError) as caught:
        runtime.invoke_endpoint(EndpointName=name, Body=b"")
    error = caught.value.response
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert error["Error"]["Message"] == f"Endpoint {name} of account {account_id} not found."


async def test_an_asynchronous_endpoint_refuses_a_call_that_waits(tmp_path: Path) -> None:
    async with gateway(tmp_path, [route("e", asynchronous=True)]) as front:
        with pytest.raises(ClientError, match="it accepts InvokeEndpointAsync only") as caught:
            await front.invoke(EndpointName="e", Body=b"")
    _assert_error(caught.value, 400, "ValidationError")


# --- errors of the model -------------------------------------------------------------------------------


@covers(
    "error.ModelError",
    "error.ModelError.Message",
    "error.ModelError.OriginalMessage",
    "error.ModelError.OriginalStatusCode",
    "error.ModelError.LogStreamArn",
)
@pytest.mark.parametrize(
    ("status", "fault", "code"),
    [
        (400, "client", "CLIENT_ERROR_FROM_MODEL"),
        (404, "client", "CLIENT_ERROR_FROM_MODEL"),
        (499, "client", "CLIENT_ERROR_FROM_MODEL"),
        (500, "server", "INTERNAL_FAILURE_FROM_MODEL"),
        (503, "server", "INTERNAL_FAILURE_FROM_MODEL"),
        (599, "server", "INTERNAL_FAILURE_FROM_MODEL"),
    ],
)
def test_an_error_of_the_container_is_a_model_error(
    target: MoorageServer, echo: str, account_id: str, status: int, fault: str, code: str
) -> None:
    runtime = target.client("sagemaker-runtime")
    bodies: list[Mapping[str, Any]] = []
    runtime.meta.events.register(
        "response-received.sagemaker-runtime.InvokeEndpoint",
        lambda response_dict, **_: bodies.append(json.loads(response_dict["body"])),
    )
    with pytest.raises(runtime.exceptions.ModelError) as caught:
        order(runtime, echo, status=status, body='it "broke"')
    error = caught.value.response
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert error["Error"]["Message"].startswith(
        f'Received {fault} error ({status}) from primary with message "it "broke"". See '
    )
    assert error["OriginalStatusCode"] == status
    assert error["OriginalMessage"] == 'it "broke"'
    assert error["LogStreamArn"] == log_group(echo, account_id)
    assert bodies[0]["ErrorCode"] == code  # not in the model, but real replies have it


def test_long_and_binary_texts_of_the_container_are_made_to_fit(runtime: Any, echo: str) -> None:
    with pytest.raises(runtime.exceptions.ModelError) as caught:
        order(runtime, echo, status=500, body="\xff\xfe" + "x" * 10_000)
    error = caught.value.response
    assert error["OriginalMessage"] == "��" + "x" * 2046
    assert len(error["Error"]["Message"]) <= 2048
    assert error["Error"]["Message"].endswith("for more information.")


def test_an_exception_in_user_code_reaches_the_caller(runtime: Any, echo: str) -> None:
    with pytest.raises(runtime.exceptions.ModelError) as caught:
        runtime.invoke_endpoint(EndpointName=echo, ContentType=ORDER, Body=b"not JSON")
    error = caught.value.response
    assert error["OriginalStatusCode"] == 500
    assert "JSONDecodeError" in error["OriginalMessage"]


@pytest.mark.parametrize("stream", [False, True], ids=["in one piece", "in chunks"])
def test_a_response_over_six_mib_is_a_model_error(
    runtime: Any, echo: str, account_id: str, stream: bool
) -> None:
    with pytest.raises(runtime.exceptions.ModelError) as caught:
        order(runtime, echo, bytes=6 * MIB + 1, stream=stream)
    error = caught.value.response
    assert error["Error"]["Message"].startswith(
        "Received server error (500) from primary and could not load the entire response body. See "
    )
    assert error["OriginalStatusCode"] == 500
    assert error["LogStreamArn"] == log_group(echo, account_id)
    assert seen(runtime, echo)["length"] == 0, "the container is as good as before"


@pytest.mark.parametrize(
    ("reply", "status", "message"),
    [
        (
            b"",
            0,
            'Received server error (0) from model with message "Amazon SageMaker could not get a response',
        ),
        (b"nonsense\r\n\r\n", 0, "Received server error (0) from model "),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhalf",
            200,
            "Received server error (200) from primary and could not load the entire response body. ",
        ),
    ],
    ids=["nothing", "no HTTP", "half a body"],
)
async def test_an_answer_that_breaks_off_is_a_model_error(
    tmp_path: Path, reply: bytes, status: int, message: str
) -> None:
    async with (
        Container(lambda _: reply).running() as container,
        gateway(tmp_path, [route("e", container.port)]) as front,
    ):
        with pytest.raises(ClientError) as caught:
            await front.invoke(EndpointName="e", Body=b"")
        assert len(container.requests) == 1, "an invocation that may have run is not run again"
    _assert_error(caught.value, 424, "ModelError")
    assert caught.value.response["OriginalStatusCode"] == status
    assert caught.value.response["Error"]["Message"].startswith(message)


# --- instances that are not there ----------------------------------------------------------------------


@dataclass(frozen=True)
class Gated:
    """A server whose invocations may last a second and a half, and an endpoint that can be held up."""

    server: MoorageServer
    endpoint: str
    echo: str
    load_gate: Path
    invoke_gate: Path


@pytest.fixture(scope="module")
def gated(ours: MoorageServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    directory = tmp_path_factory.mktemp("gated")
    server = MoorageServer(directory / "data", invocation_timeout_seconds=1.5).start()
    try:
        made = Gated(server, "gated", "echo", directory / "load", directory / "invoke")
        environment = {"LOAD_GATE": str(made.load_gate), "INVOKE_GATE": str(made.invoke_gate)}
        server.create("echo", model("echo"))
        server.deploy("gated", model("gated"), environment=environment)
        assert server.wait_for("echo", "InService", "Failed")["EndpointStatus"] == "InService"
        yield made
    finally:
        server.ensure_stopped()


def test_a_container_that_takes_too_long_is_a_model_error(gated: Gated) -> None:
    runtime = gated.server.client("sagemaker-runtime")
    with pytest.raises(runtime.exceptions.ModelError) as caught:
        order(runtime, gated.echo, forever=True)
    error = caught.value.response
    text = (
        "Your invocation timed out while waiting for a response from container primary. Review the latency "
        "metrics for each container in Amazon CloudWatch, resolve the issue, and try again."
    )
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert error["Error"]["Message"].startswith(
        f'Received server error (0) from primary with message "{text}". See '
    )
    assert (error["OriginalStatusCode"], error["OriginalMessage"]) == (0, text)
    assert error["LogStreamArn"] == log_group(gated.echo, ACCOUNT)


@covers("error.ServiceUnavailable", "error.ServiceUnavailable.Message")
def test_a_killed_container_fails_what_was_inside_and_then_there_is_none(gated: Gated) -> None:
    runtime = gated.server.client("sagemaker-runtime")
    process = _front_process(gated.load_gate)
    with closed(gated.load_gate):
        with ThreadPoolExecutor(1) as pool, closed(gated.invoke_gate):
            inside = pool.submit(runtime.invoke_endpoint, EndpointName=gated.endpoint, Body=b"")
            eventually(lambda: list(gated.invoke_gate.parent.glob("invoke.*")))
            os.kill(process, signal.SIGKILL)
            with pytest.raises(runtime.exceptions.ModelError) as caught:
                inside.result()
        error = caught.value.response
        text = f"Amazon SageMaker could not get a response from the {gated.endpoint} endpoint. This can occur when"
        assert error["ResponseMetadata"]["HTTPStatusCode"] == 424
        assert error["Error"]["Message"].startswith(
            f'Received server error (0) from model with message "{text}'
        )
        assert error["OriginalStatusCode"] == 0
        assert error["OriginalMessage"].startswith(text)
        assert error["LogStreamArn"] == log_group(gated.endpoint, ACCOUNT)

        # Until its death is noticed an invocation may still be sent to it.
        eventually(lambda: not _instances_in_service(gated.server, gated.endpoint))
        with pytest.raises(runtime.exceptions.ServiceUnavailable) as refused:
            runtime.invoke_endpoint(EndpointName=gated.endpoint, Body=b"")
        _assert_error(refused.value, 503, "ServiceUnavailable")
        assert refused.value.response["Error"]["Message"].startswith(
            "A transient exception occurred while retrieving variant instances. Please try again."
        )
    assert _answers_again(runtime, gated.endpoint) != str(process)


@covers("error.ModelNotReadyException", "error.ModelNotReadyException.Message")
def test_after_a_restart_of_the_server_a_model_that_still_loads_is_not_ready(gated: Gated) -> None:
    with closed(gated.load_gate):
        gated.server.stop()
        gated.server.start()
        runtime = gated.server.client("sagemaker-runtime")
        with pytest.raises(runtime.exceptions.ModelNotReadyException) as caught:
            runtime.invoke_endpoint(EndpointName=gated.endpoint, Body=b"")
        _assert_error(caught.value, 429, "ModelNotReadyException")
        assert "still being provisioned" in caught.value.response["Error"]["Message"]
    assert _answers_again(runtime, gated.endpoint)


def _front_process(load_gate: Path) -> int:
    """The container's first process: what the server started, and what it watches."""
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                environment = (directory / "environ").read_bytes().split(b"\0")
                command = (directory / "cmdline").read_bytes()
            except OSError:
                continue
            if b"LOAD_GATE=%b" % os.fsencode(load_gate) in environment and b"moorage.modelhost" in command:
                return int(directory.name)
    raise AssertionError("no such process")


def _instances_in_service(server: MoorageServer, endpoint: str) -> int:
    description = server.client("sagemaker").describe_endpoint(EndpointName=endpoint)
    count: int = description["ProductionVariants"][0]["CurrentInstanceCount"]
    return count


def _answers_again(runtime: Any, endpoint: str) -> str:
    answer = ""

    def invoked() -> bool:
        nonlocal answer
        try:
            answer = runtime.invoke_endpoint(EndpointName=endpoint, Body=b"")["Body"].read().decode()
        except (runtime.exceptions.ServiceUnavailable, runtime.exceptions.ModelNotReadyException):
            return False
        return True

    eventually(invoked)
    return answer


# --- errors of the service -----------------------------------------------------------------------------


@covers("error.InternalDependencyException", "error.InternalDependencyException.Message")
async def test_a_gateway_without_its_routing_table_says_so(tmp_path: Path) -> None:
    async with gateway(tmp_path, None) as front:
        with pytest.raises(ClientError, match="has not received its routing table") as caught:
            await front.invoke(EndpointName="e", Body=b"")
    _assert_error(caught.value, 530, "InternalDependencyException")


@covers("error.InternalFailure", "error.InternalFailure.Message")
async def test_a_bug_of_ours_is_an_internal_failure(tmp_path: Path) -> None:
    class Broken(RoutingTable):
        def find(self, account_id: str, endpoint_name: str) -> None:
            raise ZeroDivisionError("a secret")

    async with gateway(tmp_path, None) as front:
        front.server.table.__class__ = Broken
        with pytest.raises(ClientError) as caught:
            await front.invoke(EndpointName="e", Body=b"")
    _assert_error(caught.value, 500, "InternalFailure")
    assert "secret" not in caught.value.response["Error"]["Message"]


# --- authentication ------------------------------------------------------------------------------------


@covers(
    "error.MissingAuthenticationTokenException",
    "error.UnrecognizedClientException",
    "error.InvalidSignatureException",
)
@pytest.mark.parametrize(
    ("code", "message", "key", "secret"),
    [
        ("MissingAuthenticationTokenException", "Missing Authentication Token", None, None),
        (
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
            "AKIAUNKNOWN",
            "secret",
        ),
        (
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method. Consult the service documentation for details.",
            "",
            "wrong",
        ),
    ],
)
def test_a_request_that_is_not_signed_right_is_refused(
    target: MoorageServer, echo: str, code: str, message: str, key: str | None, secret: str | None
) -> None:
    unsigned = {} if key is not None else {"signature_version": UNSIGNED}
    stranger = boto3.client(
        "sagemaker-runtime",
        endpoint_url=target.url,
        region_name=REGION,
        aws_access_key_id=key or credentials(target).access_key,
        aws_secret_access_key=secret or "none",
        config=Config(retries={"total_max_attempts": 1}, **unsigned),
    )
    # A small body is taken in before the refusal; a large one is refused while it comes.
    for body in (b"small", bytes(MIB)):
        with pytest.raises(ClientError) as caught:
            stranger.invoke_endpoint(EndpointName=echo, Body=body)
        _assert_error(caught.value, 403, code)
        assert caught.value.response["Error"]["Message"].startswith(message)


def _assert_error(error: ClientError, status: int, code: str) -> None:
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert error.response["Error"]["Code"] == code
    modelled = code in [shape.name for shape in members.OPERATION.error_shapes]
    assert type(error).__name__ == (code if modelled else "ClientError")
    assert error.response["ResponseMetadata"]["RequestId"]


# --- the model -----------------------------------------------------------------------------------------

_FRONT_LAYER = {
    "error.RequestEntityTooLargeException",
    "error.MissingAuthenticationTokenException",
    "error.UnrecognizedClientException",
    "error.InvalidSignatureException",
}
"""Errors of every AWS service, which no service model lists."""


def test_every_member_and_error_of_the_model_is_covered() -> None:
    """Fails when a new botocore knows something that nobody has decided about: write its test, name it there."""
    assert members.covered() == members.modelled() | _FRONT_LAYER
