"""The controller's lines in the audit log: one for each call that reaches it, before the reply goes out.

What a line says besides what the gateway's headers tell is noted on the way, where it is known: which operation, on
which resources, and the error. It belongs to the call that is being answered, so no handler has to pass it on.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moorage.audit import AuditLog, Event, Outcome
from moorage.errors import (
    DeleteConflict,
    EntityAlreadyExists,
    FrontLayerError,
    InternalFailure,
    InvalidAction,
    LimitExceeded,
    NoSuchEntity,
    PackedPolicyTooLarge,
    ResourceInUse,
    ResourceLimitExceeded,
    ResourceNotFound,
    ServiceError,
    UnknownOperationException,
)
from moorage.wire import header_text

_QUOTES_NO_BODY = (
    DeleteConflict,
    EntityAlreadyExists,
    FrontLayerError,
    InternalFailure,
    InvalidAction,
    LimitExceeded,
    NoSuchEntity,
    PackedPolicyTooLarge,
    ResourceInUse,
    ResourceLimitExceeded,
    ResourceNotFound,
    UnknownOperationException,
)
"""The errors whose text says nothing of a request but names. Those of validation quote values: an environment's
variable can be among them."""


@dataclass(slots=True)
class _Noted:
    operation: str
    resources: list[str] = field(default_factory=list)
    error: ServiceError | None = None


_current: ContextVar[_Noted | None] = ContextVar("what is known of the call", default=None)


def note_operation(name: str) -> None:
    """The call is of this operation."""
    noted = _current.get()
    if noted is not None and name:
        noted.operation = name


def note_resource(arn: str) -> None:
    """The call is about this resource, among others."""
    noted = _current.get()
    if noted is not None and arn != "*" and arn not in noted.resources:
        noted.resources.append(arn)


def note_error(error: ServiceError) -> None:
    """The call is answered with this error."""
    noted = _current.get()
    if noted is not None:
        noted.error = error


class Audited:
    """Writes a line about each call to `app`. Invocations that are queued have none: they are no control plane's."""

    def __init__(self, app: ASGIApp, *, log: AuditLog) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = header_text.decode_all(scope.get("headers", ()))
        if scope["type"] != "http" or headers.get("x-moorage-operation") == "InvokeEndpointAsync":
            await self._app(scope, receive, send)
            return
        noted = _Noted(_operation(scope, headers))
        written = False

        async def write_first(message: Message) -> None:
            nonlocal written
            if message["type"] == "http.response.start":
                written = True
                self._log.write(_event(scope, headers, noted, message["status"]))
            await send(message)

        before = _current.set(noted)
        try:
            await self._app(scope, receive, write_first)
        finally:
            _current.reset(before)
            if not written:
                self._log.write(_event(scope, headers, noted, 500))


def _operation(scope: Scope, headers: Mapping[str, str]) -> str:
    target = headers.get("x-amz-target", "")
    return target.rpartition(".")[2] or f"{scope['method']} {scope['path']}"


def _event(scope: Scope, headers: Mapping[str, str], noted: _Noted, status: int) -> Event:
    service = headers.get("x-moorage-service", "")
    ours = scope["path"].startswith("/_moorage/") or not service
    error = noted.error
    return Event(
        event_source="moorage" if ours else f"{service}.amazonaws.com",
        event_name=noted.operation,
        outcome=_outcome(status, error),
        request_id=headers.get("x-amzn-requestid", ""),
        aws_region=headers.get("x-moorage-region", ""),
        source_ip_address=headers.get("x-moorage-source-ip", ""),
        user_agent=headers.get("user-agent", ""),
        account_id=headers.get("x-moorage-account-id", ""),
        principal_arn=headers.get("x-moorage-principal-arn", ""),
        access_key_id=headers.get("x-moorage-access-key-id", ""),
        resources=noted.resources,
        error_code=_code(status, error),
        error_message=error.message if isinstance(error, _QUOTES_NO_BODY) else "",
    )


def _outcome(status: int, error: ServiceError | None) -> Outcome:
    if status < 400:
        return "allowed"
    return "refused" if isinstance(error, FrontLayerError) else "failed"


def _code(status: int, error: ServiceError | None) -> str:
    """Our own routes have no codes, so the status stands for one."""
    if error is not None:
        return error.code
    return str(status) if status >= 400 else ""
