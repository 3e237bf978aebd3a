"""What is told to topics: the documented JSON of an asynchronous invocation's end, and of a test.

Sources: the SageMaker developer guide, "Check prediction results", "Amazon SNS topics"; messages that people have
published; `AsyncInferenceNotificationConfig` of the API reference for what `IncludeInferenceResponseIn` includes.
"""

import base64
import json
from datetime import UTC, datetime
from typing import Any

from moorage.async_inference.base import AsyncInvocation, Notice, Status

MOST_RESPONSE_BYTES = 128 * 1024
"""A longer response is not included in a message."""

MOST_MESSAGE_BYTES = 256 * 1024
"""SNS takes no longer message. Ours are pure ASCII, so characters are bytes, and `_LONGEST_TEXT` keeps them below:
a response in base64 has 175 KB at most, and the names and locations of a request a few KB each."""

_LONGEST_TEXT = 1024
_SEE_ELSEWHERE = "Check S3 path location(if configured) or Cloudwatch for additional details."
_EVENT = {"eventVersion": "1.0", "eventSource": "aws:sagemaker"}


def result(
    invocation: AsyncInvocation,
    *,
    region: str,
    status: Status,
    event_time: datetime,
    reason: str | None = None,
    content_type: str | None = None,
    response_body: bytes | None = None,
    response_complete: bool = True,
) -> dict[str, Any]:
    """The message that tells how an invocation ended. What is not known, or was not given, has no member.

    `reason` is for one that failed or expired, `content_type` for one that completed. `response_body` is what the
    container answered, None if it is not at hand; `response_complete` says that it is all of it.
    """
    completed = status is Status.COMPLETED
    message: dict[str, Any] = {
        "awsRegion": region,
        "eventTime": _time(event_time),
        "receivedTime": _time(invocation.received_time),
        "invocationStatus": str(status),
    }
    if not completed:
        message |= _present(failureReason=reason and reason[:_LONGEST_TEXT])
    message["requestParameters"] = _present(
        accept=invocation.accept,
        contentType=invocation.content_type,
        customAttributes=invocation.custom_attributes,
        endpointName=invocation.endpoint_name,
        inputLocation=invocation.input_location,
    )
    if completed:
        message["responseParameters"] = _present(
            contentType=content_type and content_type[:_LONGEST_TEXT],
            outputLocation=invocation.output_location,
        )
    topic_type = "SUCCESS_NOTIFICATION_TOPIC" if completed else "ERROR_NOTIFICATION_TOPIC"
    if topic_type in invocation.include_response_in:
        message["responseBody"] = _response_body(response_body if response_complete else None)
    return {**message, "inferenceId": invocation.inference_id, **_EVENT, "eventName": "InferenceResult"}


def notices(
    invocation: AsyncInvocation,
    *,
    region: str,
    status: Status,
    event_time: datetime,
    reason: str | None = None,
    content_type: str | None = None,
    response_body: bytes | None = None,
    response_complete: bool = True,
) -> tuple[Notice, ...]:
    """What the end of an invocation owes to the topics of its configuration; the arguments are those of `result`."""
    topic_arn = invocation.success_topic if status is Status.COMPLETED else invocation.error_topic
    if not topic_arn:
        return ()
    message = result(
        invocation,
        region=region,
        status=status,
        event_time=event_time,
        reason=reason,
        content_type=content_type,
        response_body=response_body,
        response_complete=response_complete,
    )
    return (
        Notice(
            account_id=invocation.account_id,
            topic_arn=topic_arn,
            message=_render(message),
            invocation_id=invocation.invocation_id,
        ),
    )


def test_notice(account_id: str, topic_arn: str) -> Notice:
    """What a topic is told when an endpoint that names it is created or updated."""
    message = _render({**_EVENT, "eventName": "TestNotification"})
    return Notice(account_id=account_id, topic_arn=topic_arn, message=message)


def _response_body(body: bytes | None) -> dict[str, str]:
    if body is not None and len(body) > MOST_RESPONSE_BYTES:
        body = None
    content = None if body is None else base64.b64encode(body).decode()
    return _present(content=content, message=_SEE_ELSEWHERE, encoding="BASE64")


def _present(**members: str | None) -> dict[str, str]:
    return {name: value for name, value in members.items() if value is not None}


def _time(time: datetime) -> str:
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _render(message: dict[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))
