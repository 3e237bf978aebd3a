"""The messages, beside the documented ones."""

import base64
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.async_inference import messages
from moorage.async_inference.base import AsyncInvocation, Notice, Status

PAGE = Path(__file__).parent.parent.parent / "docs/notifications.md"
COMPLETED_DOCUMENTED, FAILED_DOCUMENTED, TEST_DOCUMENTED = re.findall(
    r"```json\n(.*?)```", PAGE.read_text(), re.S
)
RECEIVED = datetime(2026, 3, 1, 12, 0, 0, 250_999, tzinfo=UTC)
DONE, FAILED = "arn:aws:sns:us-east-1:000000000000:done", "arn:aws:sns:us-east-1:000000000000:failed"
SEE_ELSEWHERE = "Check S3 path location(if configured) or Cloudwatch for additional details."
BOTH = ("SUCCESS_NOTIFICATION_TOPIC", "ERROR_NOTIFICATION_TOPIC")

INVOCATION = AsyncInvocation(
    invocation_id="7b9d",
    account_id="000000000000",
    endpoint_name="churn",
    inference_id="order-1",
    received_time=RECEIVED,
    expires_time=RECEIVED + timedelta(hours=6),
    timeout_seconds=900,
    content_type="text/csv",
    input_location="s3://inputs/1.csv",
    output_location="s3://results/2f6a.out",
    success_topic=DONE,
    error_topic=FAILED,
)


def facts(status: Status, **others: Any) -> dict[str, Any]:
    event_time = RECEIVED + timedelta(seconds=1.25)
    return {"region": "us-east-1", "status": status, "event_time": event_time, **others}


def test_a_completed_invocation_as_documented() -> None:
    invocation = replace(
        INVOCATION,
        accept="application/json",
        custom_attributes="trace=7",
        include_response_in=("SUCCESS_NOTIFICATION_TOPIC",),
    )
    message = messages.result(
        invocation,
        **facts(Status.COMPLETED, content_type="application/json", response_body=b'{"churn": 0.25}'),
    )
    assert json.dumps(message, indent=2) == COMPLETED_DOCUMENTED.strip()
    assert base64.b64decode(message["responseBody"]["content"]) == b'{"churn": 0.25}'


def test_a_failed_and_an_expired_invocation_as_documented() -> None:
    reason = "ClientError: Received server error (500) from model."
    message = messages.result(INVOCATION, **facts(Status.FAILED, reason=reason))
    assert json.dumps(message, indent=2) == FAILED_DOCUMENTED.strip()
    expired = messages.result(INVOCATION, **facts(Status.EXPIRED, reason=reason))
    assert expired == {**message, "invocationStatus": "Expired"}


def test_the_test_message_as_documented() -> None:
    notice = messages.test_notice("000000000000", DONE)
    assert (notice.topic_arn, notice.invocation_id) == (DONE, None)
    assert json.loads(notice.message) == json.loads(TEST_DOCUMENTED)
    # The text that AWS documents, byte by byte.
    assert (
        notice.message
        == '{"eventVersion":"1.0","eventSource":"aws:sagemaker","eventName":"TestNotification"}'
    )


def test_what_was_not_given_has_no_member() -> None:
    invocation = replace(INVOCATION, content_type=None, input_location=None, body=b"1,2")
    message = messages.result(invocation, **facts(Status.COMPLETED))
    assert message["requestParameters"] == {"endpointName": "churn"}
    assert message["responseParameters"] == {"outputLocation": "s3://results/2f6a.out"}
    assert not {"responseBody", "failureReason"} & set(message)


def test_times_are_utc_with_three_digits_whatever_their_zone() -> None:
    local = RECEIVED.replace(microsecond=0).astimezone(timezone(timedelta(hours=5, minutes=30)))
    message = messages.result(
        replace(INVOCATION, received_time=local), **{**facts(Status.COMPLETED), "event_time": local}
    )
    assert message["receivedTime"] == message["eventTime"] == "2026-03-01T12:00:00.000Z"


@pytest.mark.parametrize(
    ("body", "complete", "included"),
    [
        (b"", True, True),
        (b"x" * 128 * 1024, True, True),
        (b"x" * (128 * 1024 + 1), True, False),
        (b"the first part", False, False),
        (None, True, False),
    ],
    ids=["empty", "largest", "too large", "cut", "not at hand"],
)
@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED])
def test_a_response_is_included_when_it_is_whole_and_not_too_large(
    status: Status, body: bytes | None, complete: bool, included: bool
) -> None:
    invocation = replace(INVOCATION, include_response_in=BOTH)
    message = messages.result(invocation, **facts(status, response_body=body, response_complete=complete))
    expected = {"message": SEE_ELSEWHERE, "encoding": "BASE64"}
    if included:
        assert body is not None
        expected["content"] = base64.b64encode(body).decode()
    assert message["responseBody"] == expected


@pytest.mark.parametrize(
    ("status", "asked", "included"),
    [
        (Status.COMPLETED, BOTH[0], True),
        (Status.COMPLETED, BOTH[1], False),
        (Status.FAILED, BOTH[1], True),
        (Status.EXPIRED, BOTH[1], True),
        (Status.FAILED, BOTH[0], False),
    ],
)
def test_a_response_goes_to_the_topics_that_ask_for_it(status: Status, asked: str, included: bool) -> None:
    invocation = replace(INVOCATION, include_response_in=(asked,))
    assert ("responseBody" in messages.result(invocation, **facts(status))) is included


@pytest.mark.parametrize(
    ("status", "topic"), [(Status.COMPLETED, DONE), (Status.FAILED, FAILED), (Status.EXPIRED, FAILED)]
)
def test_the_topic_follows_from_the_status(status: Status, topic: str) -> None:
    (notice,) = messages.notices(INVOCATION, **facts(status, reason="why"))
    message = json.dumps(messages.result(INVOCATION, **facts(status, reason="why")), separators=(",", ":"))
    assert notice == Notice(account_id="000000000000", topic_arn=topic, message=message, invocation_id="7b9d")


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.EXPIRED])
def test_without_a_topic_nothing_is_owed(status: Status) -> None:
    assert messages.notices(replace(INVOCATION, success_topic=None, error_topic=""), **facts(status)) == ()


_text = st.text(alphabet=st.sampled_from('a"\\\0é😀\ud800'), max_size=1) | st.sampled_from("😀\0")


@given(st.sampled_from([Status.COMPLETED, Status.FAILED]), _text)
def test_no_message_is_larger_than_sns_takes(status: Status, character: str) -> None:
    longest = character * 1024
    invocation = replace(
        INVOCATION,
        accept=longest,
        custom_attributes=longest,
        input_location=longest,
        include_response_in=BOTH,
    )
    (notice,) = messages.notices(
        invocation,
        **facts(
            status,
            reason=character * 100_000,
            content_type=character * 100_000,
            response_body=b"\xff" * messages.MOST_RESPONSE_BYTES,
        ),
    )
    assert notice.message.isascii()
    assert len(notice.message) <= messages.MOST_MESSAGE_BYTES
