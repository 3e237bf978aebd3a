"""Requests to S3 as boto3 makes them, caught before they are sent."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.model import Shape, StructureShape

ENDPOINT = "http://127.0.0.1:9"


class Sent(NamedTuple):
    method: bytes
    target: bytes
    headers: dict[bytes, bytes]


def client() -> Any:
    return boto3.client(
        "s3",
        endpoint_url=ENDPOINT,
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )


def sent(operation: str, s3: Any = None, **members: Any) -> Sent:
    """What boto3 sends for an operation, by the name of its method."""
    s3 = s3 or client()
    seen: list[AWSPreparedRequest] = []

    class Caught(Exception):
        pass

    def catch(request: AWSPreparedRequest, **_: object) -> None:
        seen.append(request)
        raise Caught

    s3.meta.events.register("before-send.s3", catch)
    try:
        with pytest.raises(Caught):
            getattr(s3, operation)(**members)
    finally:
        s3.meta.events.unregister("before-send.s3", catch)
    [request] = seen
    assert request.url is not None
    headers = {
        name.lower().encode(): value if isinstance(value, bytes) else str(value).encode()
        for name, value in request.headers.items()
    }
    return Sent(str(request.method).encode(), request.url.removeprefix(ENDPOINT).encode(), headers)


def least_members(shape: StructureShape | None, named: Mapping[str, Any]) -> dict[str, Any]:
    """The members that an operation must have: those of `named`, and for the rest the least that is valid."""
    if shape is None:
        return {}
    return {
        name: named.get(name, _least(shape.members[name], named))
        for name in (*shape.required_members, *(each for each in named if each in shape.members))
    }


def _least(shape: Shape, named: Mapping[str, Any]) -> Any:
    match shape.type_name:
        case "structure":
            members, required = shape.members, shape.required_members  # type: ignore[attr-defined]
            if getattr(shape, "is_tagged_union", False):
                required = list(members)[:1]
            return {name: _least(members[name], named) for name in required}
        case "list":
            return [_least(shape.member, named)]  # type: ignore[attr-defined]
        case "map":
            return {}
        case "boolean":
            return True
        case "integer" | "long":
            return 1
        case "timestamp":
            return 0
        case "blob":
            return b"content"
    enumerated = getattr(shape, "enum", None)
    return enumerated[0] if enumerated else "x" * shape.metadata.get("min", 1)
