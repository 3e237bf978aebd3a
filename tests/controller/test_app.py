"""The HTTP face: dispatch, errors, STS, limits."""

import json
import logging
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import urllib3
from botocore.exceptions import ClientError

from moorage.config import MAX_CONTROL_PLANE_BODY_BYTES

from .conftest import ACCOUNT, Controller, serve


@pytest.fixture
def http() -> Any:
    with urllib3.PoolManager(retries=False) as pool:
        yield pool


def post(http: Any, controller: Controller, target: str | None, body: Any = b"{}", **headers: Any) -> Any:
    given = {"Content-Type": "application/x-amz-json-1.1", **headers}
    if target is not None:
        given["X-Amz-Target"] = target
    return http.request("POST", controller.url, body=body, headers=given)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("SageMaker.CreateTrainingJob", "This server does not have SageMaker's operation CreateTrainingJob."),
        ("SageMaker.CreateTea", "SageMaker.CreateTea is not an operation that this server knows."),
        (
            "Logs_20140328.PutLogEvents",
            "Logs_20140328.PutLogEvents is not an operation that this server knows.",
        ),
        ("CreateModel", "CreateModel is not an operation that this server knows."),
        ("", " is not an operation that this server knows."),
        (None, "The request names no operation: it has no header X-Amz-Target."),
    ],
)
def test_operations_that_are_not_here(
    http: Any, controller: Controller, target: str | None, message: str
) -> None:
    reply = post(http, controller, target)
    assert reply.status == 400
    assert reply.headers["x-amzn-ErrorType"] == "UnknownOperationException"
    assert reply.json() == {"__type": "UnknownOperationException", "message": message}


def test_boto3_tells_an_operation_that_is_not_here(controller: Controller) -> None:
    client = controller.client()
    with pytest.raises(ClientError, match="does not have SageMaker's operation ListTrainingJobs") as caught:
        client.list_training_jobs()
    assert caught.value.response["Error"]["Code"] == "UnknownOperationException"
    client.close()


def test_a_reply_and_an_error_have_the_form_of_aws_json(http: Any, controller: Controller) -> None:
    reply = post(http, controller, "SageMaker.ListModels", **{"x-amzn-requestid": "abc"})
    assert (reply.status, reply.json()) == (200, {"Models": []})
    assert reply.headers["content-type"] == "application/x-amz-json-1.1"
    assert reply.headers["x-amzn-requestid"] == "abc"
    reply = post(http, controller, "SageMaker.ListModels", b"{", **{"x-amzn-requestid": "abc"})
    assert (reply.status, reply.headers["x-amzn-ErrorType"]) == (400, "SerializationException")
    assert reply.json()["__type"] == "SerializationException"
    assert reply.headers["content-type"] == "application/x-amz-json-1.1"
    assert reply.headers["x-amzn-requestid"] == "abc"


def test_deletes_answer_with_an_empty_body(http: Any, controller: Controller) -> None:
    create = {"ModelName": "a", "PrimaryContainer": {"Image": "b"}}
    assert post(http, controller, "SageMaker.CreateModel", json.dumps(create).encode()).status == 200
    reply = post(http, controller, "SageMaker.DeleteModel", b'{"ModelName": "a"}')
    assert (reply.status, reply.data) == (200, b"")


def test_what_is_unexpected_is_an_internal_failure_with_a_trace_in_the_log_only(
    http: Any, controller: Controller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*args: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(controller.store, "get", broken)
    with caplog.at_level(logging.ERROR):
        reply = post(http, controller, "SageMaker.DescribeModel", b'{"ModelName": "a"}')
    assert (reply.status, reply.headers["x-amzn-ErrorType"]) == (500, "InternalFailure")
    assert "request-1" in reply.json()["Message"]
    assert b"secret" not in reply.data
    assert b"Traceback" not in reply.data
    (record,) = caplog.records
    assert "request-1" in record.getMessage()
    assert record.exc_info is not None


def test_a_body_beyond_the_limit_is_refused(http: Any, controller: Controller) -> None:
    fits = b'{"NameContains": "a"' + b" " * (MAX_CONTROL_PLANE_BODY_BYTES - 21) + b"}"
    assert len(fits) == MAX_CONTROL_PLANE_BODY_BYTES
    assert post(http, controller, "SageMaker.ListModels", fits).status == 200
    reply = post(http, controller, "SageMaker.ListModels", fits + b" ")
    assert (reply.status, reply.headers["x-amzn-ErrorType"]) == (413, "RequestEntityTooLargeException")


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("POST", "/models"), ("PUT", "/")])
def test_other_paths_and_methods_are_json_errors(
    http: Any, controller: Controller, method: str, path: str
) -> None:
    reply = http.request(method, controller.url + path)
    assert (reply.status, reply.headers["x-amzn-ErrorType"]) == (400, "UnknownOperationException")
    assert reply.json()["message"] == f"There is no {method} {path} here."
    assert reply.headers["x-amzn-requestid"] == "request-1"


# --- STS -----------------------------------------------------------------------------------------------


def test_who_am_i(controller: Controller) -> None:
    client = controller.client("sts")
    identity = client.get_caller_identity()
    assert identity["Account"] == ACCOUNT
    assert identity["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"
    assert identity["UserId"] == ACCOUNT
    assert identity["ResponseMetadata"]["RequestId"] == "request-1"
    client.close()


def test_other_actions_of_sts_are_refused_in_xml(http: Any, controller: Controller) -> None:
    client = controller.client("sts")
    with pytest.raises(ClientError) as caught:
        client.get_federation_token(Name="ann")
    assert caught.value.response["Error"] == {
        "Type": "Sender",
        "Code": "InvalidAction",
        "Message": "This server does not have the operation GetFederationToken of STS.",
    }
    client.close()
    reply = post(
        http, controller, None, b"Action=<a>&Version=", Authorization="Credential=k/d/r/sts/aws4_request"
    )
    assert (reply.status, reply.headers["content-type"]) == (400, "text/xml")
    namespace = "{https://sts.amazonaws.com/doc/2011-06-15/}"
    message = ET.fromstring(reply.data).findtext(f"{namespace}Error/{namespace}Message")
    assert message == "Could not find operation <a> for version "


# --- Restart -------------------------------------------------------------------------------------------


def test_a_restart_keeps_everything(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'moorage.db'}"
    described, token = [], None
    for _ in range(2):
        running = serve(Controller(tmp_path), url)
        controller = next(running)
        client = controller.client()
        if token is None:
            for name in ("a", "b"):
                client.create_model(
                    ModelName=name, PrimaryContainer={"Image": "i"}, Tags=[{"Key": "k", "Value": name}]
                )
            token = client.list_models(MaxResults=1)["NextToken"]
        assert [model["ModelName"] for model in client.list_models(NextToken=token)["Models"]] == ["a"]
        description = client.describe_model(ModelName="a")
        tags = client.list_tags(ResourceArn=description["ModelArn"])["Tags"]
        del description["ResponseMetadata"]
        described.append((description, tags))
        client.close()
        running.close()
    assert described[0] == described[1]
