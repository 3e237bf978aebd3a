"""Errors as bytes: the one place that renders a `ServiceError` (S3's own form is in `gateway.s3_errors`).

The form satisfies the error parsers of every SDK at once: the bare type name in `x-amzn-ErrorType`, a JSON
object as body, the message under the key that the service uses. Control-plane errors also carry `__type`.
"""

import json
from xml.sax.saxutils import escape

from moorage.errors import ControlPlaneError, ServiceError

JSON = "application/json"
AWS_JSON = "application/x-amz-json-1.1"


def render(error: ServiceError, *, control_plane: bool = False) -> tuple[int, str, bytes]:
    """The status, the content type and the body of an error reply.

    The header `x-amzn-ErrorType: <error.code>` belongs to it too. Clients of the control plane look for the type
    in the body only, so whatever error they get must have it there.
    """
    body: dict[str, object] = {**error.members, error.message_key: error.message}
    content_type = JSON
    if control_plane or isinstance(error, ControlPlaneError):
        body = {"__type": error.code, **body}
        content_type = AWS_JSON
    return error.status, content_type, json.dumps(body).encode()


_QUERY_NAMES = {
    "MissingAuthenticationTokenException": "MissingAuthenticationToken",
    "UnrecognizedClientException": "InvalidClientTokenId",
    "InvalidSignatureException": "SignatureDoesNotMatch",
    "IncompleteSignatureException": "IncompleteSignature",
    "ExpiredTokenException": "ExpiredToken",
    "AccessDeniedException": "AccessDenied",
}


def render_query(error: ServiceError, request_id: str) -> bytes:
    """The body of an error reply in the Query protocol's form, which STS speaks."""
    sender = "Sender" if error.status < 500 else "Receiver"
    code = _QUERY_NAMES.get(error.code, error.code)
    return (
        f'<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>{sender}</Type>'
        f"<Code>{escape(code)}</Code><Message>{escape(error.message)}</Message></Error>"
        f"<RequestId>{escape(request_id)}</RequestId></ErrorResponse>"
    ).encode()
