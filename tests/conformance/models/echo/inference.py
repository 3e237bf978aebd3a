"""Answers with what reached the container, or does what the body orders.

* Accept `application/octet-stream`: the body, as it is.
* Content-Type `application/x-order`: a JSON object that says what to answer (`status`, `content_type`, `body`,
  `headers`, `bytes`, `stream`), and what to wait for before (`forever`).
* otherwise a JSON object: the headers and the body that came, and the process that runs this instance.
"""

import hashlib
import json
import os
import threading

ORDER = "application/x-order"


def model_fn(model_dir):
    return None


def transform_fn(model, body, content_type, accept, context):
    data = body.encode() if isinstance(body, str) else body
    if content_type == ORDER:
        return _obey(json.loads(data), context)
    if accept == "application/octet-stream":
        return data, accept
    seen = {
        "headers": dict(context.get_all_request_header()),
        "length": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "instance": os.getppid(),
    }
    return json.dumps(seen), "application/json"


def _obey(order, context):
    if order.get("forever"):
        return _never(), "text/plain"
    context.set_response_status(order.get("status", 200))
    for name, value in order.get("headers", {}).items():
        context.set_response_header(name, value)
    body = b"x" * order["bytes"] if "bytes" in order else order.get("body", "").encode("latin-1")
    content_type = order.get("content_type", "text/plain")
    if order.get("stream"):
        return (body[start : start + 65536] for start in range(0, len(body), 65536)), content_type
    return body, content_type


def _never():
    """A stream, because a stream ends when its client has gone."""
    threading.Event().wait()
    yield b""
