"""InvokeEndpointAsync: every member in and out, every limit, every error, and what becomes of what was accepted."""

import asyncio
import hashlib
import json
import os
import random
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError

from moorage.cli.client import PrivateRoutes
from moorage.config import Settings
from moorage.routing.table import RoutingTable
from tests.conformance.gateways import _KEY as GATEWAY_KEY
from tests.conformance.gateways import Gateway, gateway
from tests.conformance.operation_members import Members
from tests.conformance.targets import REGION, closed, credentials, model, unique
from tests.servers import MoorageServer, eventually

LONGEST_BODY = 128_000
PATIENCE = 90.0
ORDER = "application/x-order"
RAW = "application/octet-stream"

members = Members("InvokeEndpointAsync")
covers = members.covers


# --- endpoints, and what comes of invocations ----------------------------------------------------------


class Asynchronous:
    """An asynchronous endpoint, and the S3 that has its inputs and results."""

    def __init__(self, target: MoorageServer, name: str, bucket: str) -> None:
        self.target = target
        self.name = name
        self.bucket = bucket
        self.runtime = target.client("sagemaker-runtime")
        self.s3 = target.client("s3", retries={"total_max_attempts": 5})

    def invoke(self, **given: Any) -> dict[str, Any]:
        inputs = {} if "InputLocation" in given else {"Body": b"hello"}
        reply: dict[str, Any] = self.runtime.invoke_endpoint_async(
            **{"EndpointName": self.name, **inputs, **given}
        )
        return reply

    def order(self, **what: Any) -> dict[str, Any]:
        """Tell the model `echo` what to answer; `members` are those of the call."""
        given = what.pop("members", {})
        return self.invoke(ContentType=ORDER, Body=json.dumps(what), **given)

    def seen(self, **given: Any) -> dict[str, Any]:
        """What reached the model."""
        document: dict[str, Any] = json.loads(self.output(self.invoke(**given)))
        return document

    def output(self, accepted: Mapping[str, Any]) -> bytes:
        """Its output object; the test fails when there is a failure object instead."""
        assert self._ended(accepted) == "OutputLocation", self.read(accepted["FailureLocation"])
        content = self.read(accepted["OutputLocation"])
        assert content is not None
        return content

    def failure(self, accepted: Mapping[str, Any]) -> str:
        """Its failure object; the test fails when there is an output object instead."""
        assert self._ended(accepted) == "FailureLocation"
        content = self.read(accepted["FailureLocation"])
        assert content is not None
        return content.decode()

    def read(self, location: str) -> bytes | None:
        bucket, _, key = location.removeprefix("s3://").partition("/")
        try:
            content: bytes = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except self.s3.exceptions.NoSuchKey:
            return None
        return content

    def head(self, location: str) -> dict[str, Any]:
        bucket, _, key = location.removeprefix("s3://").partition("/")
        found: dict[str, Any] = self.s3.head_object(Bucket=bucket, Key=key)
        return found

    def upload(self, body: bytes, **members: Any) -> str:
        key = unique("in")
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, **members)
        return f"s3://{self.bucket}/{key}"

    def _ended(self, accepted: Mapping[str, Any]) -> str:
        found: list[str] = []

        def ended() -> bool:
            found[:] = [
                place
                for place in ("OutputLocation", "FailureLocation")
                if self.read(accepted[place]) is not None
            ]
            return bool(found)

        eventually(ended, timeout=PATIENCE, what=lambda: f"no result of {accepted}")
        assert len(found) == 1, "either an output or a failure, never both"
        return found[0]


def async_config(bucket: str, *, concurrency: int | None = None) -> dict[str, Any]:
    client = {} if concurrency is None else {"MaxConcurrentInvocationsPerInstance": concurrency}
    return {
        "OutputConfig": {"S3OutputPath": f"s3://{bucket}/out", "S3FailurePath": f"s3://{bucket}/failed/"},
        "ClientConfig": client,
    }


def deploy(
    target: MoorageServer, model_name: str, bucket: str, *, concurrency: int | None = None, **environment: str
) -> Asynchronous:
    """An asynchronous endpoint of one of the models beside this file. Its bucket is made if it is not there."""
    name = unique(model_name)
    s3 = target.client("s3")
    if bucket not in [each["Name"] for each in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket=bucket)
    target.deploy(
        name,
        model(model_name),
        environment=environment,
        config={"AsyncInferenceConfig": async_config(bucket, concurrency=concurrency)},
    )
    return Asynchronous(target, name, bucket)


@pytest.fixture(scope="module")
def bucket() -> str:
    return unique("results")


@pytest.fixture(scope="module")
def echo_async(target: MoorageServer, sagemaker: Any, bucket: str) -> Iterator[Asynchronous]:
    made = deploy(target, "echo", bucket)
    yield made
    sagemaker.delete_endpoint(EndpointName=made.name)


@dataclass(frozen=True)
class Journal:
    """An endpoint that takes one invocation at a time, writes down which, and can be held up within them."""

    endpoint: Asynchronous
    path: Path
    gate: Path

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    def invoke(self, *texts: str) -> list[dict[str, Any]]:
        return [self.endpoint.invoke(Body=text.encode(), ContentType="text/plain") for text in texts]

    @contextmanager
    def backlog(self, *texts: str) -> Iterator[list[dict[str, Any]]]:
        """While the block runs the first of these is held up inside the container, and the others wait."""
        with closed(self.gate):
            before = len(self.lines())
            accepted = self.invoke(*texts)
            eventually(lambda: len(self.lines()) > before)
            yield accepted


def new_journal(target: MoorageServer, bucket: str, folder: Path) -> Journal:
    paths = {"JOURNAL": str(folder / "journal"), "GATE": str(folder / "gate")}
    endpoint = deploy(target, "journal", bucket, concurrency=1, **paths)
    return Journal(endpoint, folder / "journal", folder / "gate")


NUMBERS = [str(number) for number in range(8)]


# --- what is answered, and what reaches the container --------------------------------------------------


@covers("output.InferenceId", "output.OutputLocation", "output.FailureLocation")
def test_the_reply_says_where_the_result_will_be(echo_async: Asynchronous, bucket: str) -> None:
    reply = echo_async.invoke(Accept=RAW)
    assert reply["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert reply["ResponseMetadata"]["RequestId"]
    assert len(reply["InferenceId"]) == 36
    assert reply["OutputLocation"].startswith(f"s3://{bucket}/out/")
    assert reply["OutputLocation"].endswith(".out")
    assert reply["FailureLocation"].startswith(f"s3://{bucket}/failed/")
    assert reply["FailureLocation"].endswith("-error.out")
    assert echo_async.output(reply) == b"hello"
    assert echo_async.read(reply["FailureLocation"]) is None
    assert echo_async.head(reply["OutputLocation"])["ContentType"] == RAW


@covers("input.EndpointName", "input.Body")
@pytest.mark.parametrize(
    "body",
    [b"\0", b"text", bytes(range(256)) * 256, random.Random(1).randbytes(LONGEST_BODY)],
    ids=["one byte", "text", "binary", "128,000 bytes"],
)
def test_a_body_goes_in_and_out_byte_for_byte(echo_async: Asynchronous, body: bytes) -> None:
    assert echo_async.output(echo_async.invoke(Body=body, Accept=RAW)) == body


@covers("input.InputLocation")
@pytest.mark.parametrize("size", [0, 5, LONGEST_BODY + 1, 10_000_000])
def test_an_input_object_goes_in_and_out_byte_for_byte(echo_async: Asynchronous, size: int) -> None:
    body = random.Random(size).randbytes(size)
    location = echo_async.upload(body, ContentType="text/of-the-object")
    assert echo_async.output(echo_async.invoke(InputLocation=location, Accept=RAW)) == body
    saw = echo_async.seen(InputLocation=location)
    assert (saw["length"], saw["sha256"]) == (size, hashlib.sha256(body).hexdigest())
    assert saw["headers"]["content-type"] == "text/of-the-object", "as the request gives none"


def test_an_input_may_be_named_by_its_https_url(echo_async: Asynchronous) -> None:
    location = echo_async.upload(b"by URL")
    key = location.rpartition("/")[2]
    for url in (
        f"https://{echo_async.bucket}.s3.{REGION}.amazonaws.com/{key}",
        f"https://s3.{REGION}.amazonaws.com/{echo_async.bucket}/{key}",
    ):
        assert echo_async.output(echo_async.invoke(InputLocation=url, Accept=RAW)) == b"by URL"


@covers("input.ContentType", "input.Accept", "input.CustomAttributes", "input.InferenceId")
@pytest.mark.parametrize(
    ("member", "header", "value"),
    [
        ("ContentType", "content-type", "text/csv; charset=utf-8"),
        ("Accept", "accept", "application/json, */*;q=0.1"),
        ("CustomAttributes", "x-amzn-sagemaker-custom-attributes", "a=1; b='two', c~"),
        ("InferenceId", "x-amzn-sagemaker-inference-id", "an id (with spaces)"),
    ],
)
def test_a_member_reaches_the_container(
    echo_async: Asynchronous, member: str, header: str, value: str
) -> None:
    location = echo_async.upload(b"x", ContentType="text/of-the-object")
    for source in ({"Body": b"x"}, {"InputLocation": location}):
        assert echo_async.seen(**source, **{member: value})["headers"][header] == value


def test_an_inference_id_is_answered_and_may_be_given_twice(echo_async: Asynchronous) -> None:
    first, second = (echo_async.invoke(InferenceId="twice", Accept=RAW) for _ in range(2))
    assert first["InferenceId"] == second["InferenceId"] == "twice"
    assert first["OutputLocation"] != second["OutputLocation"]
    assert echo_async.output(first) == echo_async.output(second) == b"hello"


def test_only_members_reach_the_container(echo_async: Asynchronous) -> None:
    reply = echo_async.invoke(Filename="f", RequestTTLSeconds=60)
    headers = json.loads(echo_async.output(reply))["headers"]
    assert headers == {
        "x-amzn-sagemaker-forwarded-api": "InvokeEndpointAsync",
        "x-amzn-sagemaker-inference-id": reply["InferenceId"],
    }


@covers("input.S3OutputPathExtension", "input.Filename")
@pytest.mark.parametrize(
    ("given", "ending"),
    [
        ({"S3OutputPathExtension": "a/b", "Filename": "result.json"}, "out/a/b/result.json"),
        ({"S3OutputPathExtension": "/a/"}, "out/a/{}.out"),
        ({"Filename": "result"}, "out/result"),
        ({}, "out/{}.out"),
    ],
)
def test_extension_and_file_name_shape_the_output_location(
    echo_async: Asynchronous, bucket: str, given: dict[str, str], ending: str
) -> None:
    reply = echo_async.invoke(**given, Accept=RAW)
    invocation_id = reply["FailureLocation"].rpartition("/")[2].removesuffix("-error.out")
    assert reply["OutputLocation"] == f"s3://{bucket}/{ending.format(invocation_id)}"
    assert reply["FailureLocation"] == f"s3://{bucket}/failed/{invocation_id}-error.out"
    assert echo_async.output(reply) == b"hello"


def test_locations_beyond_ascii_are_kept(target: MoorageServer, sagemaker: Any, tmp_path: Path) -> None:
    """boto3 sends InputLocation as UTF-8, and reads the bytes of reply headers as Latin-1."""
    name, bucket = unique("journal"), unique("results")
    target.client("s3").create_bucket(Bucket=bucket)
    journal = tmp_path / "journal"
    target.deploy(
        name,
        model("journal"),
        environment={"JOURNAL": str(journal), "GATE": str(tmp_path / "gate")},
        config={"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": f"s3://{bucket}/日本/Å"}}},
    )
    endpoint = Asynchronous(target, name, bucket)
    endpoint.runtime = target.client("sagemaker-runtime", retries={"total_max_attempts": 3})
    endpoint.s3.put_object(Bucket=bucket, Key="ü/日本.json", Body="ein Gruß".encode())
    reply = endpoint.invoke(InputLocation=f"s3://{bucket}/ü/日本.json", Filename="result")
    assert reply["ResponseMetadata"]["RetryAttempts"] == 0
    locations = {
        member: reply[member].encode("latin-1").decode() for member in ("OutputLocation", "FailureLocation")
    }
    assert locations["OutputLocation"] == f"s3://{bucket}/日本/Å/result"
    assert locations["FailureLocation"].startswith(f"s3://{bucket}/日本/Å/")
    assert endpoint.output(locations).decode() == "ein Gruß"
    assert journal.read_text() == "ein Gruß\n", "it ran once"
    failed = endpoint.invoke(InputLocation=f"s3://{bucket}/ö.json")
    reason = endpoint.failure({member: failed[member].encode("latin-1").decode() for member in locations})
    assert reason == f"there is no object s3://{bucket}/ö.json"
    sagemaker.delete_endpoint(EndpointName=name)


def test_the_type_of_an_input_object_must_be_ascii(echo_async: Asynchronous) -> None:
    location = echo_async.upload(b"x", ContentType="text/plain; name=ü")
    assert "its Content-Type has characters beyond ASCII" in echo_async.failure(
        echo_async.invoke(InputLocation=location)
    )


@covers("input.InvocationTimeoutSeconds")
def test_a_container_that_takes_too_long_is_a_failure(echo_async: Asynchronous) -> None:
    reply = echo_async.order(forever=True, members={"InvocationTimeoutSeconds": 1})
    assert echo_async.failure(reply).startswith(
        'Received server error (0) from primary with message "Your invocation timed out while waiting for a '
        "response from container primary."
    )
    assert echo_async.output(echo_async.invoke(Accept=RAW)) == b"hello", "the container is as good as before"


@covers("input.RequestTTLSeconds")
def test_a_time_to_live_counts_from_the_acceptance(ours: MoorageServer, echo_async: Asynchronous) -> None:
    reply = echo_async.invoke(RequestTTLSeconds=60, InferenceId=unique("ttl"))
    routes = PrivateRoutes(Settings(data_dir=ours.data_dir))
    [record] = routes.ask("GET", "async/invocation", id=reply["InferenceId"])["Invocations"]
    assert _seconds_between(record["ReceivedTime"], record["ExpiresTime"]) == 60


def _seconds_between(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


# --- failures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "fault"), [(400, "client"), (500, "server"), (503, "server")])
def test_an_error_of_the_container_is_a_failure(echo_async: Asynchronous, status: int, fault: str) -> None:
    reply = echo_async.order(status=status, body='it "broke"')
    text = echo_async.failure(reply)
    assert text.startswith(f'Received {fault} error ({status}) from primary with message "it "broke"". See ')
    assert f"`moorage logs {echo_async.name}`" in text


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("s3://{bucket}/missing", "there is no object s3://{bucket}/missing"),
        ("s3://no-such-bucket/key", "there is no"),
        ("s3://{bucket}", "names no object"),
        ("s3://{bucket}/folder/", "names no object"),
        ("https://example.com", "is not the URL of an S3 object"),
    ],
)
def test_an_input_that_is_not_there_is_a_failure(
    echo_async: Asynchronous, bucket: str, location: str, said: str
) -> None:
    reply = echo_async.invoke(InputLocation=location.format(bucket=bucket))
    assert said.format(bucket=bucket) in echo_async.failure(reply)


# --- limits --------------------------------------------------------------------------------------------


def _given(endpoint: Asynchronous, name: str, value: object) -> dict[str, Any]:
    inputs = {} if name == "InputLocation" else {"Body": b"x"}
    return {"EndpointName": endpoint.name, **inputs, name: value}


@covers("error.ValidationError", "error.ValidationError.Message")
@pytest.mark.parametrize("name", members.limited())
def test_values_at_the_limits_are_accepted(echo_async: Asynchronous, name: str) -> None:
    runtime = echo_async.runtime
    for value in members.acceptable(name):
        try:
            runtime.invoke_endpoint_async(**_given(echo_async, name, value))
        except runtime.exceptions.ValidationError as error:
            assert name == "EndpointName", "any other value can be used here"
            assert f"Endpoint {value} of account " in str(error)


@pytest.mark.parametrize("name", members.limited())
def test_values_beyond_the_limits_are_refused(echo_async: Asynchronous, name: str) -> None:
    runtime = echo_async.runtime
    for value, rule in members.unacceptable(name):
        with pytest.raises(runtime.exceptions.ValidationError) as caught:
            runtime.invoke_endpoint_async(**_given(echo_async, name, value))
        _assert_error(caught.value, 400, "ValidationError")
        assert caught.value.response["Error"]["Message"] == members.complaint(name, value, rule)


@pytest.mark.parametrize(
    "name",
    [n for n in members.limited() if members.operation.input_shape.members[n].metadata.get("min", 0) > 0],
)
def test_values_that_are_too_short_are_refused(echo_async: Asynchronous, name: str) -> None:
    """By the client first; so the header is emptied behind its back."""
    runtime = echo_async.target.client("sagemaker-runtime")
    with pytest.raises(ParamValidationError):
        runtime.invoke_endpoint_async(**_given(echo_async, name, ""))
    _set_header(runtime, members.operation.input_shape.members[name].serialization["name"], "")
    with pytest.raises(runtime.exceptions.ValidationError) as caught:
        runtime.invoke_endpoint_async(EndpointName=echo_async.name, Body=b"x")
    key = name[0].lower() + name[1:]
    rule = "Member must have length greater than or equal to 1"
    assert f"Value '' at '{key}' failed to satisfy constraint: {rule}" in str(caught.value)


@pytest.mark.parametrize("name", members.numbers())
def test_numbers_are_accepted_within_their_range_and_refused_beyond(
    echo_async: Asynchronous, name: str
) -> None:
    least, greatest = members.range(name)
    header = members.operation.input_shape.members[name].serialization["name"]
    for accepted in (least, greatest):
        echo_async.invoke(**{name: accepted})
    with pytest.raises(ParamValidationError):
        echo_async.invoke(**{name: least - 1})
    for value, rule in (
        (str(least - 1), f"Member must have value greater than or equal to {least}"),
        (str(greatest + 1), f"Member must have value less than or equal to {greatest}"),
        ("1.5", None),
        ("many", None),
        ("", None),
    ):
        runtime = echo_async.target.client("sagemaker-runtime")
        _set_header(runtime, header, value)
        with pytest.raises(runtime.exceptions.ValidationError) as caught:
            runtime.invoke_endpoint_async(EndpointName=echo_async.name, Body=b"x")
        message = caught.value.response["Error"]["Message"]
        if rule is not None:
            assert message == members.complaint(name, value, rule)
        assert f"Value '{value}' at '{name[0].lower() + name[1:]}' " in message


def test_all_broken_constraints_are_reported_at_once(echo_async: Asynchronous) -> None:
    runtime = echo_async.runtime
    with pytest.raises(runtime.exceptions.ValidationError) as caught:
        runtime.invoke_endpoint_async(
            EndpointName="-", InputLocation="nowhere", Filename="/" * 33, RequestTTLSeconds=21_601
        )
    message = caught.value.response["Error"]["Message"]
    assert message.startswith("5 validation errors detected: Value '-' at 'endpointName' ")
    for key, times in (("inputLocation", 1), ("filename", 2), ("requestTTLSeconds", 1)):
        assert message.count(f"at '{key}'") == times


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"Body": b"x", "InputLocation": "s3://bucket/key"}, "InputLocation and Body are mutually exclusive"),
        ({}, "neither an InputLocation nor a Body"),
        ({"Body": b""}, "neither an InputLocation nor a Body"),
    ],
    ids=["both", "neither", "an empty body"],
)
def test_an_input_is_given_in_exactly_one_way(
    echo_async: Asynchronous, given: dict[str, Any], said: str
) -> None:
    runtime = echo_async.runtime
    with pytest.raises(runtime.exceptions.ValidationError, match=said) as caught:
        runtime.invoke_endpoint_async(EndpointName=echo_async.name, **given)
    _assert_error(caught.value, 400, "ValidationError")


def test_a_body_that_is_one_byte_too_long_is_refused(echo_async: Asynchronous) -> None:
    limit = members.operation.input_shape.members["Body"].metadata["max"]
    assert limit == LONGEST_BODY
    with pytest.raises(echo_async.runtime.exceptions.ValidationError) as caught:
        echo_async.invoke(Body=bytes(limit + 1))
    _assert_error(caught.value, 400, "ValidationError")
    assert caught.value.response["Error"]["Message"] == (
        "1 validation error detected: Value '***' at 'body' failed to satisfy constraint: "
        "Member must have length less than or equal to 128000"
    )


def test_an_unknown_endpoint_is_refused(echo_async: Asynchronous, account_id: str) -> None:
    name = unique("missing")
    with pytest.raises(echo_async.runtime.exceptions.ValidationError) as caught:
        echo_async.invoke(EndpointName=name)
    _assert_error(caught.value, 400, "ValidationError")
    assert caught.value.response["Error"]["Message"] == f"Endpoint {name} of account {account_id} not found."


def test_an_asynchronous_endpoint_refuses_calls_that_wait(echo_async: Asynchronous) -> None:
    runtime = echo_async.runtime
    for operation in (runtime.invoke_endpoint, runtime.invoke_endpoint_with_response_stream):
        with pytest.raises(runtime.exceptions.ValidationError, match="it accepts InvokeEndpointAsync only"):
            operation(EndpointName=echo_async.name, Body=b"")


def test_an_endpoint_that_is_not_asynchronous_refuses_asynchronous_calls(runtime: Any, echo: str) -> None:
    with pytest.raises(runtime.exceptions.ValidationError, match="is not an asynchronous endpoint") as caught:
        runtime.invoke_endpoint_async(EndpointName=echo, Body=b"x")
    _assert_error(caught.value, 400, "ValidationError")


def test_a_request_that_is_not_signed_right_is_refused(
    target: MoorageServer, echo_async: Asynchronous
) -> None:
    stranger = boto3.client(
        "sagemaker-runtime",
        endpoint_url=target.url,
        region_name=REGION,
        aws_access_key_id=credentials(target).access_key,
        aws_secret_access_key="wrong",
        config=Config(retries={"total_max_attempts": 1}),
    )
    with pytest.raises(ClientError) as caught:
        stranger.invoke_endpoint_async(EndpointName=echo_async.name, Body=b"x")
    _assert_error(caught.value, 403, "InvalidSignatureException")


def _set_header(runtime: Any, name: str, value: str) -> None:
    def change(request: Any, **_: Any) -> None:
        del request.headers[name]
        request.headers[name] = value

    runtime.meta.events.register("before-sign.sagemaker-runtime.InvokeEndpointAsync", change)


# --- the backlog ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def journal(
    ours: MoorageServer, bucket: str, tmp_path_factory: pytest.TempPathFactory, sagemaker: Any
) -> Iterator[Journal]:
    made = new_journal(ours, bucket, tmp_path_factory.mktemp("journal"))
    yield made
    sagemaker.delete_endpoint(EndpointName=made.endpoint.name)


def test_the_oldest_is_run_first_and_one_at_a_time(journal: Journal) -> None:
    with journal.backlog(*NUMBERS) as accepted:
        assert journal.lines() == NUMBERS[:1]
    assert [journal.endpoint.output(each).decode() for each in accepted] == NUMBERS
    assert journal.lines() == NUMBERS


def test_an_update_keeps_the_backlog(journal: Journal, sagemaker: Any) -> None:
    name = journal.endpoint.name
    new = unique("journal")
    described = sagemaker.describe_endpoint_config(EndpointConfigName=name)
    sagemaker.create_endpoint_config(
        EndpointConfigName=new,
        ProductionVariants=[{**described["ProductionVariants"][0], "VariantName": "Second"}],
        AsyncInferenceConfig=described["AsyncInferenceConfig"],
    )
    with journal.backlog(*NUMBERS) as accepted:
        sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=new)
        accepted += journal.invoke("during the update")
    outputs = [journal.endpoint.output(each).decode() for each in accepted]
    assert outputs == [*NUMBERS, "during the update"]
    endpoint = journal.endpoint.target.wait_for(name, "InService", "Failed")
    assert endpoint["EndpointConfigName"] == new
    [after] = journal.invoke("after it")
    assert journal.endpoint.output(after) == b"after it"


@pytest.fixture(scope="module")
def restarting(ours: MoorageServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MoorageServer]:
    """A server that is stopped, and that does not wait long for anything."""
    data_dir = tmp_path_factory.mktemp("restarting") / "data"
    server = MoorageServer(data_dir, stop_timeout_seconds=1, drain_timeout_seconds=1).start()
    try:
        yield server
    finally:
        server.ensure_stopped()


def test_a_restart_of_the_server_keeps_the_backlog(restarting: MoorageServer, tmp_path: Path) -> None:
    journal = new_journal(restarting, "results", tmp_path)
    with journal.backlog(*NUMBERS) as accepted:
        assert restarting.stop() == 0
    restarting.start()
    assert [journal.endpoint.output(each).decode() for each in accepted] == NUMBERS
    assert journal.lines() == [NUMBERS[0], *NUMBERS], "what was running is run again"


def test_deleting_an_endpoint_fails_its_backlog(restarting: MoorageServer, tmp_path: Path) -> None:
    doomed = new_journal(restarting, "results", tmp_path)
    name = doomed.endpoint.name
    with doomed.backlog(*NUMBERS) as accepted:
        restarting.client("sagemaker").delete_endpoint(EndpointName=name)
        for each in accepted:
            reason = doomed.endpoint.failure(each)
            assert reason == f"Endpoint {name} was deleted before this invocation was complete."
    assert doomed.lines() == NUMBERS[:1]
    with pytest.raises(doomed.endpoint.runtime.exceptions.ValidationError, match="not found"):
        doomed.invoke("too late")


# --- errors of the service -----------------------------------------------------------------------------


@covers("error.ServiceUnavailable", "error.ServiceUnavailable.Message")
def test_without_a_controller_nothing_is_accepted(restarting: MoorageServer) -> None:
    """The parent is stopped, so that nobody starts the controller again."""
    endpoint = deploy(restarting, "echo", "results")
    os.kill(restarting.pid, signal.SIGSTOP)
    try:
        os.kill(restarting.process_of("controller_process"), signal.SIGKILL)
        with pytest.raises(endpoint.runtime.exceptions.ServiceUnavailable, match="try again") as caught:
            endpoint.invoke()
    finally:
        os.kill(restarting.pid, signal.SIGCONT)
    _assert_error(caught.value, 503, "ServiceUnavailable")
    accepted: list[dict[str, Any]] = []

    def is_accepted() -> bool:
        try:
            accepted.append(endpoint.invoke(Accept=RAW))
        except endpoint.runtime.exceptions.ServiceUnavailable:
            return False
        return True

    eventually(is_accepted)
    assert endpoint.output(accepted[0]) == b"hello"


async def test_a_gateway_without_its_routing_table_is_unavailable(tmp_path: Path) -> None:
    async with gateway(tmp_path, None) as front:
        with pytest.raises(ClientError, match="has not received its routing table") as caught:
            await _invoke_async(front)
    _assert_error(caught.value, 503, "ServiceUnavailable")


@covers("error.InternalFailure", "error.InternalFailure.Message")
async def test_a_bug_of_ours_is_an_internal_failure(tmp_path: Path) -> None:
    class Broken(RoutingTable):
        def find(self, account_id: str, endpoint_name: str) -> None:
            raise ZeroDivisionError("a secret")

    async with gateway(tmp_path, None) as front:
        front.server.table.__class__ = Broken
        with pytest.raises(ClientError) as caught:
            await _invoke_async(front)
    _assert_error(caught.value, 500, "InternalFailure")
    assert "secret" not in caught.value.response["Error"]["Message"]


async def _invoke_async(front: Gateway) -> None:
    """The client blocks, so it works in a thread."""
    client = boto3.client(
        "sagemaker-runtime",
        endpoint_url=front.url,
        region_name=REGION,
        aws_access_key_id=GATEWAY_KEY.access_key_id,
        aws_secret_access_key=GATEWAY_KEY.secret_access_key,
        config=Config(retries={"total_max_attempts": 1}),
    )
    try:
        await asyncio.to_thread(client.invoke_endpoint_async, EndpointName="e", Body=b"x")
    finally:
        client.close()


def _assert_error(error: ClientError, status: int, code: str) -> None:
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert error.response["Error"]["Code"] == code
    modelled = code in [shape.name for shape in members.operation.error_shapes]
    assert type(error).__name__ == (code if modelled else "ClientError")
    assert error.response["ResponseMetadata"]["RequestId"]


# --- the model -----------------------------------------------------------------------------------------


def test_every_member_and_error_of_the_model_is_covered() -> None:
    """Fails when a new botocore knows something that nobody has decided about: write its test, name it there."""
    assert members.covered() == members.modelled()
