"""Errors as bytes: the one place that renders a `ServiceError`.

The form satisfies every SDK at once (runtime.md 3.1, 3.3, 3.4): the bare type name in `x-amzn-ErrorType`, a JSON
object as body, the message under the key that the service uses. Control-plane errors also carry `__type`.
"""

import json

from moorage.errors import ControlPlaneError, ServiceError

JSON = "application/json"
AWS_JSON = "application/x-amz-json-1.1"


def render(error: ServiceError) -> tuple[int, str, bytes]:
    """The status, the content type and the body of an error reply.

    The header `x-amzn-ErrorType: <error.code>` belongs to it too.
    """
    body: dict[str, object] = {**error.members, error.message_key: error.message}
    content_type = JSON
    if isinstance(error, ControlPlaneError):
        body = {"__type": error.code, **body}
        content_type = AWS_JSON
    return error.status, content_type, json.dumps(body).encode()
