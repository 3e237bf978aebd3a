"""`moorage invoke`."""

import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

from moorage.cli.client import ERRORS, client, complain, explain
from moorage.cli.terminal import ResultWriter
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
    inference_id: str | None,
    stream: bool,
    raw: bool,
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
    members |= {"InferenceId": inference_id} if inference_id else {}
    try:
        runtime = client(settings, "sagemaker-runtime", retries={"total_max_attempts": 1})
        if stream:
            return _stream(runtime, members, raw=raw, as_json=as_json)
        started = time.perf_counter()
        reply = runtime.invoke_endpoint(**members)
        result = reply["Body"].read()
    except ERRORS as error:
        complain(explain(error))
        return 1
    if as_json:
        print(json.dumps(_document(reply, result, time.perf_counter() - started)))
    else:
        writer = ResultWriter(raw=raw)
        writer.write(result)
        writer.end()
    return 0


def _stream(runtime: Any, members: dict[str, Any], *, raw: bool, as_json: bool) -> int:
    """Parts to stdout as they come; what they amounted to on stderr, or everything as JSON lines."""
    started = time.perf_counter()
    reply = runtime.invoke_endpoint_with_response_stream(**members)
    parts, size, first = 0, 0, 0.0
    writer = ResultWriter(raw=raw)
    for event in reply["Body"]:
        chunk = event["PayloadPart"]["Bytes"]
        if not parts:
            first = time.perf_counter() - started
        parts += 1
        size += len(chunk)
        if as_json:
            print(json.dumps(text_or_base64(chunk)), flush=True)
        else:
            writer.write(chunk)
    seconds = time.perf_counter() - started
    summary = {
        "Parts": parts,
        "Bytes": size,
        "SecondsToFirstPart": round(first, 6),
        "Seconds": round(seconds, 6),
    }
    if as_json:
        print(json.dumps(summary))
    else:
        writer.end()
        print(
            f"{parts} parts, {size:,} bytes; the first part after {first * 1000:.1f} ms, "
            f"{parts / seconds:.1f} parts/s",
            file=sys.stderr,
        )
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
    return {key: value for key, value in document.items() if value is not None} | text_or_base64(result)


def text_or_base64(data: bytes) -> dict[str, str]:
    try:
        return {"Body": data.decode()}
    except UnicodeDecodeError:
        return {"BodyBase64": base64.b64encode(data).decode()}
