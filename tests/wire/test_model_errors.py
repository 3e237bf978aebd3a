"""The words of each `ModelError` as captured."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.wire import faults, model_errors

ORIGIN = model_errors.Origin(
    account_id="123456789012", region="us-east-1", endpoint_name="echo", container_hostname="primary"
)
SEE = (
    "See `moorage logs echo` (log group /aws/sagemaker/Endpoints/echo) "
    "in account 123456789012 for more information."
)
LOG = "arn:aws:logs:us-east-1:123456789012:log-group:/aws/sagemaker/Endpoints/echo"


@pytest.mark.parametrize(
    ("status", "code", "fault"),
    [
        (302, "CLIENT_ERROR_FROM_MODEL", "client"),
        (400, "CLIENT_ERROR_FROM_MODEL", "client"),
        (499, "CLIENT_ERROR_FROM_MODEL", "client"),
        (500, "INTERNAL_FAILURE_FROM_MODEL", "server"),
        (599, "INTERNAL_FAILURE_FROM_MODEL", "server"),
    ],
)
def test_a_container_that_answered_with_an_error(status: int, code: str, fault: str) -> None:
    error = model_errors.answered(ORIGIN, status, b'{"error": "no"}')
    rendered_status, content_type, body = faults.render(error)
    assert (error.code, rendered_status, content_type) == ("ModelError", 424, "application/json")
    assert json.loads(body) == {
        "ErrorCode": code,
        "LogStreamArn": LOG,
        "Message": f'Received {fault} error ({status}) from primary with message "{{"error": "no"}}". {SEE}',
        "OriginalMessage": '{"error": "no"}',
        "OriginalStatusCode": status,
    }


def test_a_container_that_was_too_slow() -> None:
    error = model_errors.timed_out(ORIGIN)
    text = (
        "Your invocation timed out while waiting for a response from container primary. Review the latency metrics "
        "for each container in Amazon CloudWatch, resolve the issue, and try again."
    )
    assert error.message == f'Received server error (0) from primary with message "{text}". {SEE}'
    assert error.members == {
        "ErrorCode": "INTERNAL_FAILURE_FROM_MODEL",
        "LogStreamArn": LOG,
        "OriginalMessage": text,
        "OriginalStatusCode": 0,
    }


def test_a_container_that_gave_no_answer() -> None:
    error = model_errors.no_response(ORIGIN, "it closed the connection")
    text = (
        "Amazon SageMaker could not get a response from the echo endpoint. This can occur when CPU or memory "
        "utilization is high. To check your utilization, see Amazon CloudWatch. To fix this problem, use an instance "
        "type with more CPU capacity or memory."
    )
    assert error.message == (
        f'Received server error (0) from model with message "{text}" (primary: it closed the connection). {SEE}'
    )
    assert (error.members["OriginalMessage"], error.members["OriginalStatusCode"]) == (text, 0)


def test_a_body_that_could_not_be_read() -> None:
    error = model_errors.body_not_loaded(ORIGIN, 200, "it closed the connection")
    assert error.message == (
        f"Received server error (200) from primary and could not load the entire response body. {SEE}"
    )
    assert error.members["OriginalMessage"] == "it closed the connection"
    assert error.members["OriginalStatusCode"] == 200


@given(st.binary(max_size=9000))
def test_whatever_the_container_says_stays_within_the_limits(body: bytes) -> None:
    error = model_errors.answered(ORIGIN, 500, body)
    original = error.members["OriginalMessage"]
    assert isinstance(original, str)
    assert len(original) <= 2048
    assert len(error.message) <= 2048
    assert error.message.endswith(SEE)
    assert json.loads(faults.render(error)[2])["OriginalMessage"] == original


@pytest.mark.parametrize("length", [2047, 2048, 2049])
@pytest.mark.parametrize("character", ["x", "é", "€", "😀"])
def test_the_cut_is_made_between_characters(character: str, length: int) -> None:
    error = model_errors.answered(ORIGIN, 500, character.encode() * length)
    assert error.members["OriginalMessage"] == character * min(length, 2048)
