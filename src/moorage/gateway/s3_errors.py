"""Errors in S3's form: XML, and S3's own names for what the front layer refuses."""

from xml.sax.saxutils import escape

from moorage.errors import ServiceError

_S3_NAMES = {
    "MissingAuthenticationTokenException": ("AccessDenied", 403, "Access Denied"),
    "UnrecognizedClientException": (
        "InvalidAccessKeyId",
        403,
        "The AWS Access Key Id you provided does not exist in our records.",
    ),
    "InvalidSignatureException": ("SignatureDoesNotMatch", 403, None),
    "IncompleteSignatureException": ("AuthorizationHeaderMalformed", 400, None),
    "ExpiredTokenException": ("ExpiredToken", 400, None),
    "AccessDeniedException": ("AccessDenied", 403, None),
    "MalformedHttpRequestException": ("InvalidRequest", 400, None),
    "RequestTimeoutException": ("RequestTimeout", 400, None),
    "RequestEntityTooLargeException": ("EntityTooLarge", 400, None),
    "ServiceUnavailable": ("ServiceUnavailable", 503, None),
    "InternalFailure": ("InternalError", 500, None),
}


def render(error: ServiceError, request_id: str) -> tuple[int, bytes, bytes]:
    """Status, header lines and body of an error reply of S3."""
    code, status, message = _S3_NAMES.get(error.code, (error.code, error.status, None))
    if code == "SignatureDoesNotMatch":
        if error.message.startswith("Signature "):
            code = "RequestTimeTooSkewed"
        elif error.message.startswith("The provided 'x-amz-content-sha256'"):
            code, status = "XAmzContentSHA256Mismatch", 400
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{escape(message or error.message)}</Message>"
        f"<RequestId>{request_id}</RequestId></Error>"
    ).encode()
    return status, b"Content-Type: application/xml\r\n", body
