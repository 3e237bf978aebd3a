"""What a request is for: an invocation, the controller, the S3, or nothing of ours.

The service is told by the signature's credential scope, as on AWS it is told by the host name. The head is judged
before any body is taken: a stranger is refused at once.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Protocol

from moorage.audit import AuditLog
from moorage.auth import signing_time, sigv2, sigv4
from moorage.auth.access import Access
from moorage.auth.authorizer import ContextFactory
from moorage.auth.credentials import AccessKey
from moorage.auth.policy import Context
from moorage.auth.verifier import Claim, Verifier
from moorage.config import CONTAINER_CREDENTIALS_PATH, Settings
from moorage.errors import (
    AccessDeniedException,
    InvalidSignatureException,
    MalformedHttpRequestException,
    MissingAuthenticationTokenException,
    ServiceError,
    UnknownOperationException,
)
from moorage.gateway import conditions, container_credentials, scrape, unsigned_forms
from moorage.gateway.dispatch import InvocationCall
from moorage.gateway.enqueue import EnqueueCall
from moorage.gateway.health import HealthCall
from moorage.gateway.limits import Limits
from moorage.gateway.refusals import Refusals
from moorage.gateway.relay import CollectedRelay, unsigned_target
from moorage.gateway.request import Call, Request
from moorage.gateway.s3 import error_replies, forms, reading
from moorage.gateway.s3.admission import Caller
from moorage.gateway.s3.collected import ControllerRelay
from moorage.gateway.s3.deletions import DeleteObjects
from moorage.gateway.s3.described import DESCRIBED, DescribedRelay
from moorage.gateway.s3.existing_tags import TagsFirst
from moorage.gateway.s3.needs import Signed
from moorage.gateway.s3.reading import S3Request
from moorage.gateway.s3.relay import S3Relay, body_of
from moorage.gateway.s3.signing import S3Signer
from moorage.gateway.streaming import StreamCall
from moorage.gateway.unverified import OutOfBodyMemory
from moorage.resources import arn
from moorage.routing.table import Instance, RoutingTable
from moorage.turns import Turns
from moorage.upstream import Connector, Pool, tcp, unix
from moorage.wire import faults, header_text

_ENDPOINTS = b"/endpoints/"
_CONTAINER_CREDENTIALS = CONTAINER_CREDENTIALS_PATH.encode()
InvocationMaker = Callable[["GatewayFront", Request, Claim, bytes], Call]
_CALLS: Mapping[bytes, InvocationMaker] = {
    b"invocations": InvocationCall,
    b"invocations-response-stream": StreamCall,
    b"async-invocations": EnqueueCall,
}
_MOST_TARGETS = 4096
_LONGEST_TARGET = 256


class Timed(Protocol):
    """What must end by a deadline."""

    deadline: float

    def expire(self) -> None:
        """The deadline has passed."""


class GatewayFront:
    """Answers the requests of all connections of this process."""

    def __init__(
        self,
        *,
        settings: Settings,
        verifier: Verifier,
        access: Access,
        limits: Limits | None,
        s3_signer: S3Signer,
        table: RoutingTable,
        loop: asyncio.AbstractEventLoop,
        audit: AuditLog,
    ) -> None:
        self.settings = settings
        self.verifier = verifier
        self.access = access
        self.limits = limits
        self.s3_signer = s3_signer
        self.control_plane: Mapping[str, object] = {}
        """What is known of the controller and its database; see `moorage.gateway.health`."""
        self.table = table
        self.loop = loop
        self.refusals = Refusals(audit, region=settings.region)
        self.turns = Turns(loop)
        """In which large bodies are moved."""
        self.credentials_pace = container_credentials.Pace(loop.time)
        self.timed_calls: set[Timed] = set()
        """Calls that wait for a container or the controller: the server's sweep compares their deadlines with the
        clock."""
        self._error_replies: dict[str, int] = {}
        self._known_targets: dict[bytes, tuple[InvocationMaker, bytes]] = {}
        """For each target that invokes an endpoint by POST: the kind of call, and the endpoint's raw name."""
        self._pools: dict[Instance, Pool] = {}
        self.controller = self._pool_to(unix(str(settings.controller_socket)))
        self.s3 = self._pool_to(unix(str(settings.s3_socket)))

    def begin(self, request: Request) -> Call:
        target = request.target
        known = self._known_targets.get(target)
        if known is None:
            path = target.partition(b"?")[0]
            if path == b"/_moorage/health":
                return HealthCall(self, request)
            if path.startswith(_CONTAINER_CREDENTIALS):
                return container_credentials.begin(self, request)
            if path == scrape.PATH and scrape.shows_token(request):
                return scrape.ScrapeCall(self, request)
        try:
            claim = self.verifier.claim(request.headers, target, request.secure)
        except MissingAuthenticationTokenException as error:
            if unsigned_forms.may_be(request):
                return unsigned_forms.UnsignedFormCall(request, error)
            if _looks_like_s3(request):
                if sigv2.is_presigned(target):
                    return self._begin_presigned_v2(request)
                if forms.may_be(request):
                    return self._begin_form(request)
            raise
        if known is not None and claim.service == "sagemaker" and request.method == b"POST":
            call, raw_name = known
            return call(self, request, claim, raw_name)
        if claim.service == "s3":
            return self._begin_s3(request, claim)
        if target.startswith(_ENDPOINTS):
            return self._begin_invocation(request, claim)
        return CollectedRelay(self, request, claim, self.controller)

    def render_error(self, request: Request, error: ServiceError) -> tuple[int, bytes, bytes]:
        self.refusals.of_request(request, error)
        self._error_replies[error.code] = self._error_replies.get(error.code, 0) + 1
        status, lines, body = self._render_error(request, error)
        if isinstance(error, OutOfBodyMemory):
            lines += b"Retry-After: %d\r\n" % error.retry_after_seconds
        return status, lines, body

    def _render_error(self, request: Request, error: ServiceError) -> tuple[int, bytes, bytes]:
        if _speaks_s3(request):
            presigned = sigv4.is_presigned(request.target)
            return error_replies.render(error, request.request_id.decode(), presigned=presigned)
        if _speaks_query(request):
            body = faults.render_query(error, request.request_id.decode())
            return error.status, b"Content-Type: text/xml\r\n", body
        control_plane = b"x-amz-target" in request.headers
        status, content_type, body = faults.render(error, control_plane=control_plane)
        lines = f"x-amzn-ErrorType: {error.code}\r\nContent-Type: {content_type}\r\n".encode()
        return status, lines, body

    def take_error_replies(self) -> dict[str, int]:
        """How many requests this process has answered with which error since the last time."""
        taken, self._error_replies = self._error_replies, {}
        return taken

    def authorize(
        self,
        request: Request,
        key: AccessKey,
        action: str,
        resource: str,
        context: ContextFactory | None = None,
    ) -> None:
        """Raises `AccessDeniedException` unless the owner of the key may do this. `context` makes the condition keys
        beside those that every request has."""
        if not self.access.is_allowed(key, action, resource):
            self._authorize(request, key, action, resource, context)

    def may(
        self, request: Request, key: AccessKey, action: str, resource: str, context: ContextFactory
    ) -> bool:
        """Whether the owner of the key may do this, which is not asked for: nothing is written to the audit log."""
        if self.access.is_allowed(key, action, resource):
            return True
        region = self.settings.region
        try:
            self.access.authorize(
                key, action, resource, lambda: {**conditions.of_request(request, region=region), **context()}
            )
        except AccessDeniedException:
            return False
        return True

    def authorize_invocation(self, request: Request, key: AccessKey, action: str, endpoint_name: str) -> None:
        """The same for an endpoint: one of the key's own account by its name, or any by its ARN."""
        self.authorize(
            request, key, action, _endpoint_arn(self.settings.region, key.account_id, endpoint_name)
        )

    def _authorize(
        self,
        request: Request,
        key: AccessKey,
        action: str,
        resource: str,
        context: ContextFactory | None,
    ) -> None:
        region = self.settings.region

        def whole_context() -> Context:
            common = conditions.of_request(request, region=region)
            return common if context is None else {**common, **context()}

        try:
            self.access.authorize(key, action, resource, whole_context)
        except AccessDeniedException as error:
            self.refusals.of_caller(request, key, error, action=action, resource=resource)
            raise

    def pool_of(self, instance: Instance) -> Pool:
        pool = self._pools.get(instance)
        if pool is None:
            pool = self._pools[instance] = self._pool_to(
                tcp(instance.host, instance.port, network=instance.network)
            )
        return pool

    def overdue(self, now: float) -> list[Timed]:
        """The calls whose time is over."""
        return [call for call in self.timed_calls if call.deadline <= now]

    def close_stale_connections(self) -> None:
        """Close idle upstream connections, and forget the pools of instances that are gone."""
        for instance, pool in list(self._pools.items()):
            if instance.retired and not instance.outstanding:
                pool.close()
                del self._pools[instance]
            else:
                pool.close_stale()
        self.controller.close_stale()
        self.s3.close_stale()

    def close(self) -> None:
        for pool in (*self._pools.values(), self.controller, self.s3):
            pool.close()
        self.refusals.close()

    def _begin_invocation(self, request: Request, claim: Claim) -> Call:
        if claim.service != "sagemaker":
            raise InvalidSignatureException("Credential should be scoped to correct service: 'sagemaker'. ")
        path = request.target.partition(b"?")[0]
        raw_name, _, operation = path[len(_ENDPOINTS) :].partition(b"/")
        call = _CALLS.get(operation)
        if call is None or request.method != b"POST":
            raise UnknownOperationException(
                f"There is no operation {request.method.decode()} {header_text.decode(path)} "
                "of the service sagemaker."
            )
        if len(self._known_targets) >= _MOST_TARGETS:
            self._known_targets.clear()
        if len(request.target) <= _LONGEST_TARGET:
            self._known_targets[request.target] = call, raw_name
        return call(self, request, claim, raw_name)

    def _begin_s3(self, request: Request, claim: Claim) -> Call:
        self._check_s3_is_ours()
        if claim.payload_hash is None:
            raise MalformedHttpRequestException(
                "Missing required header for this request: x-amz-content-sha256"
            )
        key = self.verifier.verify(
            claim,
            method=request.method,
            target=request.target,
            headers=request.headers,
            body_hash=claim.payload_hash.decode("latin-1"),  # the relay compares it with the body's own
        )
        signed = Signed("REST-HEADER", sigv4.ALGORITHM)
        if claim.presigned:
            age = time.time() - signing_time.parse_date(claim.timestamp)
            signed = Signed("REST-QUERY-STRING", sigv4.ALGORITHM, int(age * 1000))
        caller = Caller(self, request, key, signed)
        return self._begin_operation(
            request, caller, unsigned_target(request, claim), claim.payload_hash, claim
        )

    def _begin_presigned_v2(self, request: Request) -> Call:
        self._check_s3_is_ours()
        key = self.verifier.verify_presigned_v2(request.method, request.target, request.headers)
        caller = Caller(self, request, key, Signed("REST-QUERY-STRING", "AWS"))
        target = sigv2.without_signature(request.target)
        return self._begin_operation(request, caller, target, sigv4.UNSIGNED_PAYLOAD, None)

    def _begin_operation(
        self, request: Request, caller: Caller, target: bytes, payload_hash: bytes, claim: Claim | None
    ) -> Call:
        if self.limits is not None:
            self.limits.admit(request, caller.key)
        asked = reading.read(request.method, target, request.headers)
        body = body_of(request, asked, payload_hash, claim)

        def begin(asked: S3Request) -> Call:
            if asked.operation.by_controller:
                return ControllerRelay(self, request, caller, asked, body)
            if asked.operation.name == "DeleteObjects":
                return DeleteObjects(self, request, caller, asked, body)
            if asked.operation.name in DESCRIBED:
                return DescribedRelay(self, request, caller, asked, body)
            return S3Relay(self, request, caller, asked, body)

        existing, source = caller.tags_to_read(asked)
        if existing or source:
            return TagsFirst(self, request, caller, asked, begin, existing=existing, source=source)
        return begin(asked)

    def _begin_form(self, request: Request) -> Call:
        self._check_s3_is_ours()
        return forms.FormUpload(self, request, reading.bucket_of(request.target))

    def _check_s3_is_ours(self) -> None:
        if self.settings.s3_endpoint:
            raise UnknownOperationException(
                f"This server keeps its objects in {self.settings.s3_endpoint}. Speak to that S3 directly, with its "
                "own credentials: AWS_ENDPOINT_URL_S3 names it to every SDK."
            )

    def _pool_to(self, connector: Connector) -> Pool:
        return Pool(
            connector,
            loop=self.loop,
            timeout_seconds=self.settings.connect_timeout_seconds,
            idle_seconds=self.settings.container_idle_seconds,
            turns=self.turns,
        )


@lru_cache(maxsize=4096)
def _endpoint_arn(region: str, account_id: str, endpoint_name: str) -> str:
    if endpoint_name.startswith("arn:"):
        return endpoint_name
    return arn("endpoint", region=region, account_id=account_id, name=endpoint_name)


def _speaks_query(request: Request) -> bool:
    """Whether the client expects the XML of the Query protocol."""
    headers = request.headers
    if _claimed_service(request) == "sts":
        return True
    is_form = headers.get(b"content-type", b"").startswith(b"application/x-www-form-urlencoded")
    return is_form and request.target == b"/" and b"x-amz-target" not in headers


def _speaks_s3(request: Request) -> bool:
    """Whether the client expects S3's XML: by the scope of its signature, else by the look of the request."""
    service = _claimed_service(request)
    return _looks_like_s3(request) if service is None else service == "s3"


def _claimed_service(request: Request) -> str | None:
    return sigv4.claimed_service(request.headers.get(b"authorization", b""), request.target)


def _looks_like_s3(request: Request) -> bool:
    path = request.target.partition(b"?")[0]
    if not path:
        return False  # nothing of it could be read
    return not (
        path.startswith((b"/endpoints/", b"/_moorage/"))
        or (request.method == b"POST" and path == b"/")
        or b"x-amz-target" in request.headers
    )
