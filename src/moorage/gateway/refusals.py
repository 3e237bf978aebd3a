"""What the gateway refuses or cannot pass on, for the audit log. Nothing here runs for a request that succeeds.

What a stranger sends is told with care. Its words are not trusted to be what they should: somebody who mixes up the
two halves of a key sends the secret as the key's id. And the texts of many errors quote the request, up to the whole
`Authorization` header; here those say what is wrong in words that quote nothing.
"""

import re
from collections.abc import Mapping
from weakref import WeakSet

from moorage.audit import AuditLog, BoundedAuditLog, Event, Outcome
from moorage.auth import sigv4
from moorage.auth.credentials import AccessKey
from moorage.errors import (
    Fault,
    FrontLayerError,
    IncompleteSignatureException,
    InvalidSignatureException,
    MalformedHttpRequestException,
    ServiceError,
    ThrottlingException,
)
from moorage.gateway.request import Request
from moorage.gateway.s3 import reading
from moorage.wire import header_text

MOST_PER_SECOND = 100
"""Lines that one gateway writes of strangers, as many again of known callers, and of those that ask too much."""

_STRANGERS = "calls refused before it was known who called"
_CALLERS = "calls of known callers refused"
_THROTTLED = "calls throttled"
_MAY_QUOTE = (InvalidSignatureException, IncompleteSignatureException, MalformedHttpRequestException)
_QUOTES_NOTHING: frozenset[Fault] = frozenset(
    (
        "both_forms",
        "headers_not_signed",
        "signature",  # its first line
        "not_fresh",
        "not_yet",
        "expired",
        "expires_number",
        "expires_negative",
        "expires_large",
        "missing_v2",
    )
)
_WITHOUT_QUOTES: Mapping[Fault, str] = {
    "component": "A part of the Authorization header is not a key=value pair.",
    "expires_epoch": "The time that the signature ends at is not in seconds.",
    "missing": "Parameters of the signature are missing.",
    "date": "The date is missing, or not in ISO 8601's basic format.",
    "algorithm": "The algorithm is not AWS4-HMAC-SHA256.",
    "credential_form": "The credential does not have five elements.",
    "credential_terminator": "The credential does not end in aws4_request.",
    "credential_region": "The credential is scoped to another region.",
    "credential_date": "The credential is scoped to another day than the request's.",
    "payload_hash_form": "x-amz-content-sha256 is not a hash, nor what may stand for one.",
    "payload_hash": "The body does not have the hash that was declared.",
}
_OPERATIONS = {
    "invocations": "InvokeEndpoint",
    "invocations-response-stream": "InvokeEndpointWithResponseStream",
    "async-invocations": "InvokeEndpointAsync",
}
_KEY_ID = re.compile(r"[A-Z0-9]{8,128}")
"""What a claimed access key id must be to be told; secrets have small letters."""

_SERVICE = re.compile(r"[a-z0-9.-]{1,64}")


class Refusals:
    """Takes note of requests that are answered with an error by the gateway itself."""

    def __init__(self, log: AuditLog, *, region: str) -> None:
        self._log = BoundedAuditLog(log, most_per_second=MOST_PER_SECOND)
        self._region = region
        self._noted: WeakSet[ServiceError] = WeakSet()

    def of_caller(
        self, request: Request, key: AccessKey, error: ServiceError, *, action: str = "", resource: str = ""
    ) -> None:
        """The owner of the key, whose signature was verified, may not do this, or not now. Once for an error: the
        reply that it makes is not noted again. `action` and `resource` are what a permission is missing for."""
        self._noted.add(error)
        kind = _THROTTLED if isinstance(error, ThrottlingException) else _CALLERS
        self._log.write(kind, lambda: self._event_of_caller(request, key, error, action, resource))

    def of_request(self, request: Request, error: ServiceError) -> None:
        """A request is being answered with an error. Noted are those refused before any operation ran, and those to
        the control plane, which the controller has not answered."""
        if error in self._noted:
            return
        if isinstance(error, ThrottlingException):
            self._log.write(_THROTTLED, lambda: self._event(request, error, "refused"))
        elif isinstance(error, FrontLayerError):
            self._log.write(_STRANGERS, lambda: self._event(request, error, "refused"))
        elif _is_for_controller(request):
            self._log.write(_CALLERS, lambda: self._event(request, error, "failed"))

    def tell_left_out(self) -> None:
        """To be called about once a second."""
        self._log.tell_left_out()

    def close(self) -> None:
        self._log.close()

    def _event_of_caller(
        self, request: Request, key: AccessKey, error: ServiceError, action: str, resource: str
    ) -> Event:
        service, _, name = action.partition(":")
        known = service not in ("", "moorage")
        source, event_name = (f"{service}.amazonaws.com", name) if known else _called(request)
        return Event(
            event_source=source,
            event_name=event_name,
            outcome="refused",
            request_id=request.request_id.decode(),
            aws_region=self._region,
            source_ip_address=request.client_address,
            user_agent=_user_agent(request),
            account_id=key.account_id,
            principal_arn=key.principal_arn,
            access_key_id=key.access_key_id,
            resources=() if resource in ("", "*") else (resource,),
            error_code=error.code,
            error_message=error.message,
        )

    def _event(self, request: Request, error: ServiceError, outcome: Outcome) -> Event:
        source, name = _called(request)
        path = _path(request)
        return Event(
            event_source=source,
            event_name=name,
            outcome=outcome,
            request_id=request.request_id.decode(),
            aws_region=self._region,
            source_ip_address=request.client_address,
            user_agent=_user_agent(request),
            access_key_id=_claimed_key_id(request),
            resources=(path,) if path else (),
            error_code=error.code,
            error_message=_message(error),
        )


def _message(error: ServiceError) -> str:
    """What is wrong, in words that quote nothing of the request."""
    if not isinstance(error, FrontLayerError):
        return error.message
    if error.fault in _WITHOUT_QUOTES:
        return _WITHOUT_QUOTES[error.fault]
    return "" if isinstance(error, _MAY_QUOTE) and error.fault not in _QUOTES_NOTHING else error.message


def _called(request: Request) -> tuple[str, str]:
    """Service and operation, as far as the head tells; else method and path are the name."""
    path, method = _path(request), request.method.decode()
    name = f"{method} {path}".strip()
    if path.startswith("/_moorage/"):
        return "moorage", name
    if path.startswith("/endpoints/"):
        return "sagemaker.amazonaws.com", _OPERATIONS.get(path.rpartition("/")[2], name)
    service = _claimed_service(request)
    source = f"{service}.amazonaws.com" if service else ""
    target = request.headers.get(b"x-amz-target")
    if target:
        return source, header_text.decode(target).rpartition(".")[2]
    if service == "s3" and path:
        return source, reading.operation_name(request.method, request.target, request.headers) or name
    return source, name


def _is_for_controller(request: Request) -> bool:
    path = _path(request)
    return bool(path) and not path.startswith("/endpoints/") and _claimed_service(request) != "s3"


def _path(request: Request) -> str:
    """Without the query, in which the signature and the token of a presigned request are."""
    path = header_text.decode(request.target.partition(b"?")[0])
    return path if path.startswith("/") else ""


def _user_agent(request: Request) -> str:
    return header_text.decode(request.headers.get(b"user-agent", b""))


def _claimed_service(request: Request) -> str:
    claimed = sigv4.claimed_service(request.headers.get(b"authorization", b""), request.target) or ""
    return claimed if _SERVICE.fullmatch(claimed) else ""


def _claimed_key_id(request: Request) -> str:
    credential = sigv4.claimed_credential(request.headers.get(b"authorization", b""), request.target) or ""
    key_id = credential.partition("/")[0]
    return key_id if _KEY_ID.fullmatch(key_id) else ""
