"""Errors as bytes: the one place that renders a `ServiceError`. What S3 calls it is in `gateway.s3.error_replies`.

The form satisfies the error parsers of every SDK at once: the bare type name in `x-amzn-ErrorType`, a JSON
object as body, the message under the key that the service uses. Control-plane errors also carry `__type`.
"""

import json
import re
from collections.abc import Mapping
from xml.sax.saxutils import escape

from moorage.errors import ControlPlaneError, InvocationError, ServiceError

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
    elif isinstance(error, InvocationError):
        body.setdefault("ErrorCode", error.error_code)
    return error.status, content_type, json.dumps(body).encode()


_QUERY_NAMES = {
    "MissingAuthenticationTokenException": "MissingAuthenticationToken",
    "UnrecognizedClientException": "InvalidClientTokenId",
    "InvalidSignatureException": "SignatureDoesNotMatch",
    "IncompleteSignatureException": "IncompleteSignature",
    "ExpiredTokenException": "ExpiredToken",
    "AccessDeniedException": "AccessDenied",
    "ThrottlingException": "Throttling",
}


STS_NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"


def render_query(error: ServiceError, request_id: str, *, namespace: str = STS_NAMESPACE) -> bytes:
    """The body of an error reply in the Query protocol's form, which STS and IAM speak."""
    sender = "Sender" if error.status < 500 else "Receiver"
    code = _QUERY_NAMES.get(error.code, error.code)
    return (
        f'<ErrorResponse xmlns="{namespace}"><Error><Type>{sender}</Type>'
        f"<Code>{xml_text(code)}</Code><Message>{xml_text(error.message)}</Message></Error>"
        f"<RequestId>{xml_text(request_id)}</RequestId></ErrorResponse>"
    ).encode()


def render_s3(code: str, message: str, members: Mapping[str, object], request_id: str) -> bytes:
    """The body of an error reply of S3. `members` are elements beside the code, the message and the id."""
    elements = {"Code": code, "Message": message, **members, "RequestId": request_id}
    text = "".join(f"<{name}>{xml_text(str(value))}</{name}>" for name, value in elements.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{text}</Error>'.encode()


_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml_text(text: str) -> str:
    """Text as it may stand in XML, which has no way to say most control characters."""
    return escape(_NOT_XML.sub("\ufffd", text))
