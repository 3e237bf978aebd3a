"""`moorage invoke`."""

import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

from moorage.cli.client import ERRORS, client, complain, explain
from moorage.config import Settings


def invoke(
    settings: Settings,
    *,
    name: str,
    body: str | None,
    file: Path | None,
    content_type: str,
    accept: str | None,
    target_variant: str | None,
    as_json: bool,
) -> int:
    if (body is None) == (file is None):
        complain("give the request's body with either --body or --file")
        return 2
    try:
        payload = _read(file) if body is None else body.encode()
    except OSError as error:
        complain(f"cannot read {file}: {error.strerror}")
        return 2
    members: dict[str, Any] = {"EndpointName": name, "Body": payload, "ContentType": content_type}
    members |= {"Accept": accept} if accept else {}
    members |= {"TargetVariant": target_variant} if target_variant else {}
    try:
        runtime = client(settings, "sagemaker-runtime", retries={"total_max_attempts": 1})
        started = time.perf_counter()
        reply = runtime.invoke_endpoint(**members)
        result = reply["Body"].read()
    except ERRORS as error:
        complain(explain(error))
        return 1
    if as_json:
        print(json.dumps(_document(reply, result, time.perf_counter() - started)))
    else:
        sys.stdout.buffer.write(result)
        if sys.stdout.isatty() and not result.endswith(b"\n"):
            print()
    return 0


def _read(file: Path | None) -> bytes:
    if file is None or str(file) == "-":
        return sys.stdin.buffer.read()
    return file.read_bytes()


def _document(reply: dict[str, Any], result: bytes, seconds: float) -> dict[str, Any]:
    """The reply as JSON; a body that is no text is in base64."""
    document: dict[str, Any] = {
        "InvokedProductionVariant": reply.get("InvokedProductionVariant"),
        "ContentType": reply.get("ContentType"),
        "CustomAttributes": reply.get("CustomAttributes"),
        "Seconds": round(seconds, 6),
    }
    try:
        document["Body"] = result.decode()
    except UnicodeDecodeError:
        document["BodyBase64"] = base64.b64encode(result).decode()
    return {key: value for key, value in document.items() if value is not None}
