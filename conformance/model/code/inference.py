"""Answers with what reached the container, or does what the body orders.

* Accept `application/octet-stream`: the body, as it is.
* Content-Type `application/x-order`: a JSON object that says what to do; see `_obey`.
* otherwise a JSON object: the headers, and the length and the SHA-256 of the body that came.

An instance runs several worker processes, so what they tell each other is in files.
"""

import hashlib
import json
import tempfile
import threading
import time
from pathlib import Path

ORDER = "application/x-order"
RAW = "application/octet-stream"
_GATE_SECONDS = 60.0
_NOTES = Path(tempfile.gettempdir())


def model_fn(model_dir):
    return None


def transform_fn(model, body, content_type, accept, context):
    data = body.encode() if isinstance(body, str) else body
    if content_type == ORDER:
        return _obey(json.loads(data), context)
    if accept == RAW:
        return bytes(data), RAW
    seen = {
        "headers": dict(context.get_all_request_header(0)),
        "length": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return json.dumps(seen), "application/json"


def _obey(order, context):
    """One of:

    * `count`: take a note under this name, and go on with the rest of the order; `counted`: how many there are
    * `hang`: never answer
    * `parts`: a stream of so many parts, `part-000000` and on, each with a newline; `break` true: then break off
    * `gate`: a stream of `first`, and of `second` once somebody has ordered `open` with the same name
    * otherwise a reply of `body`, `status`, `content_type` and `headers`
    """
    if "count" in order:
        with (_NOTES / f"count-{order['count']}").open("a") as notes:
            notes.write("\n")
    if "counted" in order:
        notes = _NOTES / f"count-{order['counted']}"
        return str(notes.stat().st_size if notes.exists() else 0), "text/plain"
    if "open" in order:
        (_NOTES / f"gate-{order['open']}").touch()
        return "open", "text/plain"
    if order.get("hang"):
        return _hang(), "text/plain"
    context.set_response_status(order.get("status", 200))
    for name, value in order.get("headers", {}).items():
        context.set_response_header(0, name, value)
    content_type = order.get("content_type", "text/plain")
    if "parts" in order:
        return _parts(order["parts"], order.get("break", False)), content_type
    if "gate" in order:
        return _gated(_NOTES / f"gate-{order['gate']}"), content_type
    return order.get("body", ""), content_type


def _parts(number, breaks):
    for index in range(number):
        yield f"part-{index:06d}\n"
    if breaks:
        raise RuntimeError("the order was to break off")


def _gated(gate):
    yield "first"
    end = time.monotonic() + _GATE_SECONDS
    while not gate.exists() and time.monotonic() < end:
        time.sleep(0.01)
    yield "second"


def _hang():
    """A stream, because a stream ends when its client has gone."""
    threading.Event().wait()
    yield b""
