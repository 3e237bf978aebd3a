"""What is queued for a request: ids, places, times."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from moorage.async_inference.acceptance import plan
from moorage.async_inference.base import AsyncInvocation
from moorage.errors import ValidationError

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
PREFIX = "x-amzn-sagemaker-"


def planned(output: dict[str, Any] | None = None, body: bytes = b"", **headers: str) -> AsyncInvocation:
    names = {f"{PREFIX}{name.replace('_', '-')}": value for name, value in headers.items()}
    config = {"OutputConfig": {"S3OutputPath": "s3://b/out"} if output is None else output}
    return plan(
        account_id="000000000000", endpoint_name="demo", config=config, headers=names, body=body, now=NOW
    )


def test_what_is_left_out_is_as_the_reference_says() -> None:
    invocation = planned(body=b"x")
    assert invocation.expires_time - invocation.received_time == timedelta(hours=6)
    assert invocation.timeout_seconds == 900
    assert len(invocation.inference_id) == 36
    assert invocation.inference_id != planned(body=b"x").inference_id
    assert (invocation.body, invocation.input_location) == (b"x", None)


def test_what_is_given_is_kept() -> None:
    invocation = planned(
        inputlocation="s3://b/in",
        inference_id="mine",
        content_type="text/csv",
        accept="*/*",
        custom_attributes="a",
        requestttlseconds="60",
        invocationtimeoutseconds="3600",
    )
    assert (invocation.body, invocation.input_location) == (None, "s3://b/in")
    assert (invocation.inference_id, invocation.content_type) == ("mine", "text/csv")
    assert (invocation.accept, invocation.custom_attributes) == ("*/*", "a")
    assert invocation.expires_time == NOW + timedelta(seconds=60)
    assert invocation.timeout_seconds == 3600


@pytest.mark.parametrize(
    ("path", "headers", "location"),
    [
        ("s3://b", {"filename": "r.json"}, "s3://b/r.json"),
        ("s3://b/out/", {"filename": "r.json"}, "s3://b/out/r.json"),
        ("s3://b/out", {"filename": "r", "s3outputpathextension": "day/one"}, "s3://b/out/day/one/r"),
        ("s3://b/out", {"filename": "r", "s3outputpathextension": "/day/"}, "s3://b/out/day/r"),
        ("s3://b/out", {"filename": "r", "s3outputpathextension": "/"}, "s3://b/out/r"),
    ],
)
def test_where_the_result_goes(path: str, headers: dict[str, str], location: str) -> None:
    assert planned({"S3OutputPath": path}, **headers).output_location == location


def test_generated_names_are_those_of_the_invocation() -> None:
    invocation = planned({"S3OutputPath": "s3://b/out", "S3FailurePath": "s3://c/bad"}, inference_id="same")
    assert invocation.output_location == f"s3://b/out/{invocation.invocation_id}.out"
    assert invocation.failure_location == f"s3://c/bad/{invocation.invocation_id}-error.out"


def test_failures_go_below_the_output_path_unless_they_have_a_path() -> None:
    invocation = planned(filename="mine.out", s3outputpathextension="ext")
    assert invocation.failure_location == f"s3://b/out/{invocation.invocation_id}-error.out"
    nowhere = planned({})
    assert (nowhere.output_location, nowhere.failure_location) == (None, None)


@pytest.mark.parametrize("member", ["S3OutputPath", "S3FailurePath"])
@pytest.mark.parametrize("path", ["s3://\n/x", "s3://b/a\0", "s3://b/\x1b[2J", "s3://b/\x7f"])
def test_a_location_that_no_reply_can_name_is_refused_before_anything_is_queued(
    member: str, path: str
) -> None:
    with pytest.raises(ValidationError, match=f"The {member} .* has a control character") as caught:
        planned({"S3OutputPath": "s3://b/out", member: path})
    assert caught.value.message.isprintable()


def test_topics_are_those_of_the_moment() -> None:
    topic = "arn:aws:sns:us-east-1:000000000000:"
    notification = {
        "SuccessTopic": topic + "good",
        "ErrorTopic": topic + "bad",
        "IncludeInferenceResponseIn": ["SUCCESS_NOTIFICATION_TOPIC"],
    }
    invocation = planned({"S3OutputPath": "s3://b", "NotificationConfig": notification})
    assert (invocation.success_topic, invocation.error_topic) == (topic + "good", topic + "bad")
    assert invocation.include_response_in == ("SUCCESS_NOTIFICATION_TOPIC",)
