"""Errors in S3's form: XML, and S3's own codes and words for what the front layer refuses."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from moorage.errors import Fault, FrontLayerError, S3Error, ServiceError
from moorage.wire import faults, header_text


class Words(NamedTuple):
    """How S3 says something. `members` are elements beside the code and the message."""

    code: str
    status: int
    message: str
    members: Mapping[str, object] = {}


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
    "ThrottlingException": ("SlowDown", 503, None),
    "InternalFailure": ("InternalError", 500, None),
}
_IN_CREDENTIAL: Mapping[Fault, str] = {
    "credential_form": 'the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".',
    "credential_terminator": 'incorrect terminal "{terminator}". This endpoint uses "aws4_request".',
    "credential_region": "the region '{region}' is wrong; expecting '{expected}'",
    "credential_date": 'Invalid credential date "{date}". This date is not the same as X-Amz-Date: "{day}".',
}
_IN_QUERY: Mapping[Fault, str] = {
    "missing": "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, "
    "X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.",
    "date": "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"",
    "algorithm": 'X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"',
    "expires_number": "X-Amz-Expires should be a number",
    "expires_negative": "X-Amz-Expires must be non-negative",
    "expires_large": "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be "
    "less than 604800 seconds",
}


def render(error: ServiceError, request_id: str, *, presigned: bool) -> tuple[int, bytes, bytes]:
    """Status, header lines and body of an error reply of S3. `presigned` is whether the signature is in the query."""
    words = None
    if isinstance(error, FrontLayerError) and error.fault:
        words = _in_query(error) if presigned else _in_header(error)
        words = words or _in_either(error)
    if isinstance(error, S3Error):
        words = Words(error.code, error.status, error.message, error.members)
    if words is None:
        code, status, message = _S3_NAMES.get(error.code, (error.code, error.status, None))
        words = Words(code, status, message or error.message)
    body = faults.render_s3(words.code, words.message, words.members, request_id)
    return words.status, b"Content-Type: application/xml\r\n", body


def _in_query(error: FrontLayerError) -> Words | None:
    fault, details = error.fault, error.details
    message = _IN_QUERY.get(fault)
    if message is None and fault in _IN_CREDENTIAL:
        message = "Error parsing the X-Amz-Credential parameter; " + _about_credential(fault, details)
    return Words("AuthorizationQueryParametersError", 400, message) if message else None


def _in_header(error: FrontLayerError) -> Words | None:
    fault, details = error.fault, error.details
    if fault == "date":
        message = "AWS authentication requires a valid Date or x-amz-date header"
        return Words("AccessDenied", 403, message)
    if fault == "algorithm":
        return _invalid_argument("Unsupported Authorization Type", "Authorization", details["algorithm"])
    if fault == "component":
        text = str(details["authorization"])
        if text.startswith("AWS "):
            message = (
                "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
            )
            return Words("InvalidRequest", 400, message)
        if " " not in text:
            message = "Authorization header is invalid -- one and only one ' ' (space) required."
            return _invalid_argument(message, "Authorization", text)
        problem = f'the authorization component "{details["component"]}" is malformed.'
    elif fault == "missing":
        missing: Any = details["missing"]
        problem = f"missing {missing[0]}."
        if details["given"] != 3:
            problem = "the authorization header requires three components: Credential, SignedHeaders, and Signature."
    elif fault in _IN_CREDENTIAL:
        problem = _about_credential(fault, details)
    else:
        return None
    region = {"Region": details["expected"]} if fault == "credential_region" else {}
    message = f"The authorization header is malformed; {problem}"
    return Words("AuthorizationHeaderMalformed", 400, message, region)


def _about_credential(fault: Fault, details: Mapping[str, Any]) -> str:
    if fault == "credential_date" and not re.fullmatch(r"[0-9]{8}", details["date"]):
        return (
            f'incorrect date format "{details["date"]}". '
            'This date in the credential must be in the format "yyyyMMdd".'
        )
    return _IN_CREDENTIAL[fault].format(**details)


def _in_either(error: FrontLayerError) -> Words | None:
    details: Mapping[str, Any] = error.details
    match error.fault:
        case "both_forms":
            return _invalid_argument(
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string "
                "parameter or the Authorization header should be specified",
                "Authorization",
                details["authorization"],
            )
        case "headers_not_signed":
            message = "There were headers present in the request which were not signed"
            return Words("AccessDenied", 403, message, {"HeadersNotSigned": details["names"]})
        case "not_fresh":
            message = "The difference between the request time and the current time is too large."
            times = {
                "RequestTime": f"{datetime.fromtimestamp(details['timestamp'], UTC):%Y%m%dT%H%M%SZ}",
                "ServerTime": _time(details["now"]),
                "MaxAllowedSkewMilliseconds": details["skew"] * 1000,
            }
            return Words("RequestTimeTooSkewed", 403, message, times)
        case "not_yet":
            return Words("AccessDenied", 403, "Request is not valid yet.")
        case "missing_v2":
            return Words("AccessDenied", 403, error.message)
        case "expires_epoch":
            return Words("AccessDenied", 403, f"{error.message}: {details['expires']}")
        case "expired":
            lifetime = {} if details["lifetime"] is None else {"X-Amz-Expires": details["lifetime"]}
            period = {
                **lifetime,
                "Expires": _time(details["expired_at"]),
                "ServerTime": _time(details["now"]),
            }
            return Words("AccessDenied", 403, "Request has expired", period)
        case "token":
            return Words("InvalidToken", 400, "The provided token is malformed or otherwise invalid.")
        case "token_expired":
            return Words("ExpiredToken", 400, "The provided token has expired.")
        case "unknown_key":
            message = "The AWS Access Key Id you provided does not exist in our records."
            return Words("InvalidAccessKeyId", 403, message, {"AWSAccessKeyId": details["access_key_id"]})
        case "payload_hash":
            message = "The provided 'x-amz-content-sha256' header does not match what was computed."
            hashes = {
                "ClientComputedContentSHA256": details["declared"],
                "S3ComputedContentSHA256": details["computed"],
            }
            return Words("XAmzContentSHA256Mismatch", 400, message, hashes)
        case "payload_hash_form":
            return _invalid_argument(error.message, "x-amz-content-sha256", details["declared"])
        case "signature":
            message = (
                "The request signature we calculated does not match the signature you provided. "
                "Check your key and signing method."
            )
            return Words("SignatureDoesNotMatch", 403, message, _what_was_signed(details))
    return None


def _what_was_signed(details: Mapping[str, Any]) -> dict[str, object]:
    """For whoever debugs a signer, as S3 does. Version 2 has no canonical request."""
    canonical: dict[str, object] = {}
    if details["canonical"] is not None:
        canonical["CanonicalRequest"] = header_text.decode(details["canonical"])
        canonical["CanonicalRequestBytes"] = details["canonical"].hex(" ")
    return {
        "AWSAccessKeyId": details["access_key_id"],
        "StringToSign": header_text.decode(details["string_to_sign"]),
        "SignatureProvided": details["signature"],
        "StringToSignBytes": details["string_to_sign"].hex(" "),
        **canonical,
    }


def _invalid_argument(message: str, name: str, value: object) -> Words:
    return Words("InvalidArgument", 400, message, {"ArgumentName": name, "ArgumentValue": value})


def _time(timestamp: float) -> str:
    return f"{datetime.fromtimestamp(timestamp, UTC):%Y-%m-%dT%H:%M:%SZ}"
