"""The HTTP face of the controller: what the gateway relays, and who answers it.

The gateway has verified the signature and the permission; its `x-moorage-*` headers are trusted, which is sound
because only it can reach the socket that this listens on.
"""

import json
import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from moorage.audit import AuditLog
from moorage.auth.request_context import global_context
from moorage.auth.sealing import Sealer
from moorage.config import MAX_CONTROL_PLANE_BODY_BYTES
from moorage.controller import auditing, log_events, sts
from moorage.controller.admission import Admission
from moorage.controller.authorization import Params, needs
from moorage.controller.execution_roles import ExecutionRoles
from moorage.controller.iam import Iam
from moorage.controller.log_events import LogEvents
from moorage.controller.log_files import LogDirectories
from moorage.controller.operations import OPERATIONS, Call
from moorage.controller.operations.endpoints import address_in
from moorage.controller.permissions import Permissions, Requester
from moorage.controller.sts import Sts
from moorage.errors import (
    AccessDeniedException,
    InternalFailure,
    RequestEntityTooLargeException,
    ServiceError,
    ServiceUnavailable,
    UnknownOperationException,
)
from moorage.storage.base import ResourceStore
from moorage.storage.failures import DatabaseUnavailable
from moorage.storage.identities import IdentityStore
from moorage.storage.objects import Objects
from moorage.wire import awsjson, awsquery, faults, header_text

logger = logging.getLogger(__name__)

_TARGET_PREFIX = "SageMaker."
_NO_DATABASE = ServiceUnavailable(
    "The server's database does not answer in time. Endpoints in service keep answering; please try this again."
)


def create_app(
    *,
    store: ResourceStore,
    wake: Callable[[str, str], None],
    instance_counts: Callable[[str, str], Mapping[str, int]],
    roles: ExecutionRoles,
    objects: Objects | None = None,
    identities: IdentityStore,
    sealer: Sealer,
    audit: AuditLog | None = None,
    logs: LogDirectories,
    region: str,
) -> Starlette:
    """The application. For the collaborators see `Call` and `LogEvents`; closing the stores is the caller's."""
    control_plane = _ControlPlane(
        store=store,
        wake=wake,
        instance_counts=instance_counts,
        roles=roles,
        objects=objects,
        identities=identities,
        sealer=sealer,
        logs=logs,
        region=region,
    )
    app = Starlette(
        routes=[Route("/", control_plane.answer, methods=["POST"])],
        exception_handlers={HTTPException: _no_such_route, DatabaseUnavailable: _no_database},
    )
    if audit is not None:
        app.add_middleware(auditing.Audited, log=audit)
    return app


class _ControlPlane:
    def __init__(
        self,
        *,
        store: ResourceStore,
        wake: Callable[[str, str], None],
        instance_counts: Callable[[str, str], Mapping[str, int]],
        roles: ExecutionRoles,
        objects: Objects | None,
        identities: IdentityStore,
        sealer: Sealer,
        logs: LogDirectories,
        region: str,
    ) -> None:
        self._admission = Admission()
        self._store = store
        self._wake = wake
        self._instance_counts = instance_counts
        self._roles = roles
        self._objects = objects
        self._permissions = Permissions(identities)
        self._query_services: Mapping[str, Iam | Sts] = {
            "sts": Sts(identities, sealer),
            "iam": Iam(identities),
        }
        self._sagemaker = awsjson.load("sagemaker", OPERATIONS)
        self._log_events = LogEvents(logs, self._permissions, region=region)

    async def answer(self, request: Request) -> Response:
        request_id = _request_id(request)
        query_protocol = _speaks_query(request)
        try:
            async with self._admission.place():
                if query_protocol:
                    return await self._answer_query(request, request_id)
                return _reply(200, faults.AWS_JSON, await self._answer_json(request), request_id)
        except ServiceError as error:
            return _error_reply(error, request_id, query_protocol)
        except DatabaseUnavailable:
            return _error_reply(_NO_DATABASE, request_id, query_protocol)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception:
            logger.exception(
                "request %s (%s) failed unexpectedly", request_id, _headers(request).get("x-amz-target", "")
            )
            failure = InternalFailure(
                f"The server met an error of its own. Its log tells more under request id {request_id}."
            )
            return _error_reply(failure, request_id, query_protocol)

    async def _answer_json(self, request: Request) -> bytes:
        target = _headers(request).get("x-amz-target", "")
        if target.startswith(log_events.TARGET_PREFIX):
            return await self._log_events.answer(target, await _read_body(request), requester_of(request))
        return await self._answer_sagemaker(request)

    async def _answer_sagemaker(self, request: Request) -> bytes:
        name = self._operation_name(request)
        body = await _read_body(request)
        operation = self._sagemaker.operations[name]
        call, members = await self._addressed(name, self._call(request), awsjson.read(operation, body))
        awsjson.check(operation, members)
        await self._authorize(requester_of(request), name, members, call)
        return awsjson.render(operation, await OPERATIONS[name](call, members))

    async def _addressed(
        self, operation: str, call: Call, members: dict[str, Any]
    ) -> tuple[Call, dict[str, Any]]:
        """The same, but for an endpoint's ARN in place of its name: then the call is of the endpoint's account."""
        address = address_in(operation, members, region=call.region)
        if address is None:
            return call, members
        endpoint = await self._store.endpoint_of(address.arn)
        name = address.name if endpoint is None else endpoint.name
        return replace(call, account_id=address.account_id), {**members, "EndpointName": name}

    async def _authorize(self, requester: Requester, operation: str, members: Params, call: Call) -> None:
        """Raises `AccessDeniedException`."""
        for need in await needs(
            operation,
            members,
            account_id=call.account_id,
            region=call.region,
            store=self._store,
        ):
            try:
                await self._permissions.check(
                    requester,
                    need.action,
                    need.resource,
                    context=need.context,
                    resource_policy=need.policy,
                    resource_account_id=call.account_id,
                )
            except AccessDeniedException as error:
                if need.advice:
                    raise AccessDeniedException(f"{error.message}. {need.advice}") from None
                raise

    async def _answer_query(self, request: Request, request_id: str) -> Response:
        body = await _read_body(request)
        name = request.headers.get("x-moorage-service", "")
        service = self._query_services.get(name)
        if service is None:
            action = awsquery.decode(body).get("Action", "")
            raise UnknownOperationException(
                f"This server does not have the operation {action} of {name.upper()}."
            )
        status, content_type, body = await service.answer(body, requester_of(request), request_id)
        return _reply(status, content_type, body, request_id)

    def _operation_name(self, request: Request) -> str:
        """The operation that the request is for.

        Raises:
            UnknownOperationException: there is none, or this server does not have it.
        """
        target = _headers(request).get("x-amz-target")
        if target is None:
            raise UnknownOperationException("The request names no operation: it has no header X-Amz-Target.")
        name = target.removeprefix(_TARGET_PREFIX)
        if target.startswith(_TARGET_PREFIX) and name in OPERATIONS:
            return name
        if target.startswith(_TARGET_PREFIX) and name in self._sagemaker.names:
            raise UnknownOperationException(f"This server does not have SageMaker's operation {name}.")
        raise UnknownOperationException(f"{target} is not an operation that this server knows.")

    def _call(self, request: Request) -> Call:
        headers = request.headers
        return Call(
            account_id=headers["x-moorage-account-id"],
            region=headers["x-moorage-region"],
            principal_arn=headers["x-moorage-principal-arn"],
            request_id=_request_id(request),
            time=datetime.now(UTC),
            store=self._store,
            wake=self._wake,
            instance_counts=self._instance_counts,
            roles=self._roles,
            objects=self._objects,
        )


def requester_of(request: Request) -> Requester:
    """Who calls, as the gateway says."""
    headers = _headers(request)
    session = json.loads(headers.get("x-moorage-session", "null"))
    return Requester(
        account_id=headers["x-moorage-account-id"],
        principal_arn=headers["x-moorage-principal-arn"],
        user_id=headers["x-moorage-user-id"],
        is_session=session is not None,
        context=global_context(
            source_ip=headers["x-moorage-source-ip"],
            secure=headers["x-moorage-secure"] == "true",
            now=datetime.now(UTC),
            region=headers["x-moorage-region"],
            user_agent=headers.get("user-agent"),
            referer=headers.get("referer"),
        ),
        **(session or {}),
    )


def _headers(request: Request) -> Mapping[str, str]:
    """The request's headers as text, by their names in lower case."""
    return header_text.decode_all(request.scope["headers"])


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_CONTROL_PLANE_BODY_BYTES:
            raise RequestEntityTooLargeException(
                f"HTTP content length exceeded {MAX_CONTROL_PLANE_BODY_BYTES} bytes."
            )
    return bytes(body)


def _request_id(request: Request) -> str:
    """The id that the gateway gave; one of our own, kept for the request, when it gave none."""
    given = request.headers.get("x-amzn-requestid")
    if given is None:
        given = request.scope.setdefault("moorage.request_id", str(uuid.uuid4()))
    return given


def _speaks_query(request: Request) -> bool:
    """Whether the client expects the XML of the Query protocol: STS, IAM and others that take forms."""
    if request.headers.get("x-moorage-service") in ("sts", "iam"):
        return True
    is_form = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    return is_form and "x-amz-target" not in request.headers


def _reply(status: int, content_type: str, body: bytes, request_id: str, error_code: str = "") -> Response:
    headers = {"content-type": content_type, "x-amzn-requestid": request_id}
    if error_code:
        headers["x-amzn-ErrorType"] = error_code
    return Response(body, status_code=status, headers=headers)


def _error_reply(error: ServiceError, request_id: str, query_protocol: bool) -> Response:
    auditing.note_error(error)
    if query_protocol:
        body = faults.render_query(error, request_id)
        return _reply(error.status, sts.CONTENT_TYPE, body, request_id, error.code)
    status, content_type, body = faults.render(error, control_plane=True)
    return _reply(status, content_type, body, request_id, error.code)


async def _no_such_route(request: Request, error: Exception) -> Response:
    problem = UnknownOperationException(f"There is no {request.method} {request.url.path} here.")
    return _error_reply(problem, _request_id(request), query_protocol=False)


async def _no_database(request: Request, error: Exception) -> Response:
    """For the routes of our own; those of AWS's services answer in the form of their protocol."""
    return _error_reply(_NO_DATABASE, _request_id(request), query_protocol=False)
