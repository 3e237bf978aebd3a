"""What the model (../model) and the gateway that fails on demand (../failing_gateway.py) are asked for."""

import hashlib
import json
import urllib.request
import uuid

from report import required

ORDER = "application/x-order"
RAW = "application/octet-stream"
MISSING = "no-such-endpoint"
MIB = 1024 * 1024


def endpoint() -> str:
    return required("CONFORMANCE_ENDPOINT")


def async_endpoint() -> str:
    return required("CONFORMANCE_ASYNC_ENDPOINT")


def order(**what: object) -> dict[str, str]:
    """The members that tell the model what to do."""
    return {"ContentType": ORDER, "Body": json.dumps(what)}


def unique() -> str:
    return str(uuid.uuid4())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def some_bytes(length: int) -> bytes:
    """Every byte value, over and over."""
    return bytes((index * 7 + (index >> 8)) & 0xFF for index in range(length))


def listed(number: int) -> str:
    """What the model's order `parts` makes."""
    return "".join(f"part-{index:06d}\n" for index in range(number))


def fail(error: str, times: int) -> None:
    """The next invocations of the gateway that fails on demand."""
    url = f"{required('CONFORMANCE_FAILING_CONTROL')}/fail?error={error}&times={times}"
    urllib.request.urlopen(urllib.request.Request(url, method="POST")).close()


def counts() -> dict[str, int]:
    """Its attempts since then, and its connections since it began."""
    with urllib.request.urlopen(f"{required('CONFORMANCE_FAILING_CONTROL')}/counts") as reply:
        counted: dict[str, int] = json.load(reply)
        return counted
