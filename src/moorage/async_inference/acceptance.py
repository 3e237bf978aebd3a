"""From a request to an invocation in the queue: names its places, and commits it before anyone is told."""

import secrets
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from moorage.async_inference.base import AsyncInvocation
from moorage.errors import ValidationError
from moorage.wire import header_text

DEFAULT_TTL_SECONDS = 21_600
DEFAULT_TIMEOUT_SECONDS = 900
"""What InvokeEndpointAsync's API reference says of RequestTTLSeconds and InvocationTimeoutSeconds left out."""

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the caller is told: with status 202, in the words of InvokeEndpointAsync's output."""

    inference_id: str
    output_location: str | None
    failure_location: str | None


async def accept(
    put: Callable[[AsyncInvocation], Awaitable[None]],
    *,
    account_id: str,
    endpoint_name: str,
    config: Mapping[str, Any],
    headers: Headers,
    body: bytes,
    now: datetime,
    role_arn: str | None = None,
    role_exists: bool = False,
) -> Accepted:
    """Queue one invocation. `config` is the endpoint's AsyncInferenceConfig; `headers` hold the members of the
    request, which the gateway has validated; `role_arn` is the endpoint's execution role, and
    `role_exists` whether it existed when the model was made."""
    invocation = plan(
        account_id=account_id,
        endpoint_name=endpoint_name,
        config=config,
        headers=headers,
        body=body,
        now=now,
        role_arn=role_arn,
        role_exists=role_exists,
    )
    await put(invocation)
    return Accepted(invocation.inference_id, invocation.output_location, invocation.failure_location)


def plan(
    *,
    account_id: str,
    endpoint_name: str,
    config: Mapping[str, Any],
    headers: Headers,
    body: bytes,
    now: datetime,
    role_arn: str | None = None,
    role_exists: bool = False,
) -> AsyncInvocation:
    """What is to be queued. Every invocation has an id of its own, which names its objects: callers may give
    one InferenceId to many.

    Raises:
        ValidationError: the reply could not say where the result will be.
    """
    output = config["OutputConfig"]
    notification = output.get("NotificationConfig", {})
    invocation_id = time_ordered_id(now)
    output_path = output.get("S3OutputPath") or None
    failure_path = output.get("S3FailurePath") or output_path
    extension = headers.get("x-amzn-sagemaker-s3outputpathextension")
    filename = headers.get("x-amzn-sagemaker-filename") or f"{invocation_id}.out"
    ttl = int(headers.get("x-amzn-sagemaker-requestttlseconds", DEFAULT_TTL_SECONDS))
    return AsyncInvocation(
        invocation_id=invocation_id,
        account_id=account_id,
        endpoint_name=endpoint_name,
        inference_id=headers.get("x-amzn-sagemaker-inference-id") or time_ordered_id(now),
        received_time=now,
        expires_time=now + timedelta(seconds=ttl),
        timeout_seconds=int(
            headers.get("x-amzn-sagemaker-invocationtimeoutseconds", DEFAULT_TIMEOUT_SECONDS)
        ),
        content_type=headers.get("x-amzn-sagemaker-content-type"),
        accept=headers.get("x-amzn-sagemaker-accept"),
        custom_attributes=headers.get("x-amzn-sagemaker-custom-attributes"),
        input_location=headers.get("x-amzn-sagemaker-inputlocation"),
        body=body or None,
        output_location=_join("S3OutputPath", output_path, extension, filename),
        failure_location=_join("S3FailurePath", failure_path, None, f"{invocation_id}-error.out"),
        success_topic=notification.get("SuccessTopic"),
        error_topic=notification.get("ErrorTopic"),
        role_arn=role_arn,
        role_exists=role_exists,
        include_response_in=tuple(notification.get("IncludeInferenceResponseIn", ())),
    )


def _join(member: str, path: str | None, extension: str | None, filename: str) -> str | None:
    if path is None:
        return None
    if not header_text.can_carry(path):
        raise ValidationError(
            f"The {member} {path!r} of the endpoint's configuration has a control character, so no reply can name "
            "the result's location. Update the endpoint to a configuration with another path.",
            ErrorCode="OUTPUT_LOCATION_NOT_REPRESENTABLE",
        )
    parts = [
        path.rstrip("/"),
        *([extension.strip("/")] if extension and extension.strip("/") else []),
        filename,
    ]
    return "/".join(parts)


def time_ordered_id(now: datetime) -> str:
    """A UUID of version 7 (RFC 9562): milliseconds since 1970, then 74 random bits. What was accepted together is
    together in the indexes of the queue, so that a put or a purge changes few pages of the database."""
    milliseconds = int(now.timestamp() * 1000)
    number = milliseconds << 80 | secrets.randbits(80)
    number = number & ~(0xF << 76 | 0b11 << 62) | 0x7 << 76 | 0b10 << 62
    return str(uuid.UUID(int=number))
