"""The model of the instances, packed as it is, and for the checks: what each body must be answered with.

A body is `<kind>:<name>:<payload>`. No two have the same name, so an answer shows which body it belongs to.
"""

import hashlib
import json
import os
import time
import urllib.request
from collections.abc import Iterator

MOST_PARTS = 8


def model_fn(model_dir: str) -> None:
    return None


def transform_fn(model: None, body: bytes | str, content_type: str, accept: str) -> object:
    text = body if isinstance(body, str) else body.decode()
    kind, name, _ = text.split(":", 2)
    if kind == "stream":
        return _stream(text), "text/plain"
    if kind == "call":
        return json.dumps(_call_the_server()), "application/json"
    if kind == "slow":
        time.sleep(0.3)
    if kind == "fails":
        raise ValueError("this one fails: " + name)
    # What follows the blank tells two runs of one invocation apart.
    return answer(text) + f" {os.getpid()}-{time.time_ns()}", "text/plain"


def answer(text: str) -> str:
    """The part of an answer that the body determines. It is longer than the body, so that a cut shows."""
    _, name, payload = text.split(":", 2)
    return f"{name}:{hashlib.sha256(text.encode()).hexdigest()}:{payload[::-1]}"


def parts(text: str) -> list[str]:
    """The whole response stream for a body."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    name = text.split(":", 2)[1]
    count = 2 + int(digest[0], 16) % (MOST_PARTS - 1)
    return [f"{name}:{number}/{count}:{digest}\n" for number in range(1, count + 1)]


def _stream(text: str) -> Iterator[str]:
    for part in parts(text):
        yield part
        time.sleep(0.01)


def _call_the_server() -> dict[str, str]:
    """What the server's health check answers to this instance."""
    url = os.environ.get("MOORAGE_ENDPOINT_URL", "")
    status = ""
    if url:
        try:
            with urllib.request.urlopen(url + "/_moorage/health", timeout=5) as reply:
                status = str(reply.status)
        except OSError as error:
            status = str(error)
    return {"instance": os.environ["MOORAGE_INSTANCE_ID"], "url": url, "status": status}
