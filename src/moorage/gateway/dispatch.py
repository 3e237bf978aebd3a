"""An invocation on its way: collected, judged, given an instance, sent to its container, answered.

An `InvocationCall` is both the front's call (the request's body arrives at `data` and `end`) and the exchange with
the container (its reply arrives at `reply_head`, `reply_data` and `reply_end`). It holds at most one reservation at
any time, and every way out of it goes through `_release`.
"""

import asyncio
import errno
import hashlib
import math
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from moorage.auth.verifier import Claim
from moorage.errors import (
    OUR_FAULT,
    InternalDependencyException,
    InternalFailure,
    ModelError,
    ModelNotReadyException,
    RequestEntityTooLargeException,
    ServiceError,
    ServiceUnavailable,
    ValidationError,
)
from moorage.gateway.pieces import TINY, gather
from moorage.gateway.request import Call, Request
from moorage.gateway.unverified import unverified_body
from moorage.resources import address_of
from moorage.routing import selection
from moorage.routing.table import EndpointRoute, Instance, RoutingTable, VariantRoute
from moorage.upstream import UpstreamConnection
from moorage.wire import invocation as wire
from moorage.wire import model_errors

if TYPE_CHECKING:
    from moorage.gateway.front import GatewayFront

_FEATURES = frozenset(
    (
        b"x-amzn-sagemaker-target-model",
        b"x-amzn-sagemaker-inference-component",
        b"x-amzn-sagemaker-target-container-hostname",
        b"x-amzn-sagemaker-enable-explanations",
    )
)
"""The headers that ask for what only some endpoints have."""

_NO_FILES = (
    "The gateway has no file descriptor left to reach an instance with. Raise the limit of open files (`ulimit -n`) "
    "before `moorage serve`, or send fewer invocations at once."
)
_HASH_AS_IT_COMES = 256 * 1024
"""Bodies above this many bytes are hashed chunk by chunk, so that no single step is long; for the same reason they
stay in pieces, of which a few are written at a time."""

_PIECES_AT_ONCE = 4
_PIECES_OF_AN_ERROR = 8
"""Enough of a container's error for all that is told of it."""


class InvocationCall(Call):
    """One call of InvokeEndpoint."""

    __slots__ = (
        "_claim",
        "_connecting",
        "_connection",
        "_front",
        "_hasher",
        "_held",
        "_instance",
        "_invocation",
        "_next_part",
        "_parts",
        "_raw_name",
        "_reply_headers",
        "_reply_parts",
        "_reply_size",
        "_reply_status",
        "_request",
        "_route",
        "_sent_at",
        "_size",
        "_tried",
        "_variant",
        "deadline",
    )

    operation: ClassVar = wire.SYNC
    no_table_error: ClassVar[type[ServiceError]] = InternalDependencyException
    not_ready_error: ClassVar[type[ServiceError]] = ModelNotReadyException

    def __init__(self, front: "GatewayFront", request: Request, claim: Claim, raw_name: bytes) -> None:
        self._front = front
        self._request = request
        self._claim = claim
        self._raw_name = raw_name
        # the request's body
        self._parts: list[bytes | bytearray] = []
        self._size = 0
        self._hasher = None
        # decided once the body is complete
        self._invocation: wire.Invocation | None = None
        self._route: EndpointRoute | None = None
        self._variant: VariantRoute | None = None
        # the attempt under way
        self._instance: Instance | None = None
        self._connection: UpstreamConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._tried: tuple[Instance, ...] = ()
        self._sent_at = 0.0
        self.deadline = math.inf
        # the container's reply
        self._reply_status = 0
        self._reply_headers: dict[bytes, bytes] = {}
        self._reply_parts: list[bytes | bytearray] = []
        self._reply_size = 0
        length = request.content_length
        if length is not None:
            self._check_size(length)
            if length > _HASH_AS_IT_COMES:
                self._hasher = hashlib.sha256()

    # --- the request arrives --------------------------------------------------------------------------

    def data(self, chunk: bytes) -> None:
        self._size += len(chunk)
        self._check_size(self._size)
        parts = self._parts
        parts.append(chunk)
        if len(parts) > 1 and len(chunk) < TINY:
            gather(parts)
        if self._hasher is not None:
            self._hasher.update(chunk)
        elif self._size > _HASH_AS_IT_COMES:  # it came in chunks, with no length declared
            self._hasher = hashlib.sha256(b"".join(parts))

    def unverified_body(self) -> tuple[str, int]:
        front = self._front
        return unverified_body(front.verifier, self._request, self._claim, front.settings.max_body_bytes)

    def end(self) -> None:
        """Everything is here. From now on the reply is this call's business."""
        request = self._request
        digest = self._hasher
        if digest is None:
            # A larger body stays in pieces: to join 25 MB takes longer than any other request should have to wait.
            body = b"".join(self._parts)
            self._parts = [body]
            digest = hashlib.sha256(body)
        key = self._front.verifier.verify(
            self._claim, request.method, request.target, request.headers, digest.hexdigest()
        )
        limits = self._front.limits
        if limits is not None:
            limits.admit(request, key)
        self._invocation = invocation = parse_invocation(self.operation, self._raw_name, request)
        self._front.authorize_invocation(request, key, "sagemaker:InvokeEndpoint", invocation.endpoint_name)
        table = self._front.table
        route = table.find(key.account_id, invocation.endpoint_name)
        if route is None:
            route = route_by_arn(table, key.account_id, invocation.endpoint_name, self.no_table_error)
        self._route = route
        _check_features(route, invocation)
        self._variant = selection.choose_variant(route, invocation.target_variant)
        self.deadline = request.received_at + self._front.settings.invocation_timeout_seconds
        self._front.timed_calls.add(self)
        self._attempt()

    def cancel(self) -> None:
        """The client has gone: so must the work in the container."""
        self._reply_parts = []
        if self._variant is not None and self._instance is not None:  # else its end has been counted
            self._variant.counts.abandoned()
        self._give_up()

    def _check_size(self, size: int) -> None:
        limit = self._front.settings.max_body_bytes
        if size > limit:
            raise RequestEntityTooLargeException(f"HTTP content length exceeded {limit} bytes.")

    # --- to an instance -------------------------------------------------------------------------------

    def _attempt(self, *, otherwise: ServiceError | None = None) -> None:
        """Send it to an instance not tried yet; if there is none, fail (with `otherwise`)."""
        assert self._route is not None
        assert self._variant is not None
        self._instance = selection.reserve(self._variant, without=self._tried)
        if self._instance is None:
            self._fail(otherwise or self._no_instance(self._route, self._variant))
            return
        self._connecting = self._front.pool_of(self._instance).start(self)

    def connected(self, connection: UpstreamConnection) -> None:
        assert self._invocation is not None
        assert self._instance is not None
        self._connecting = None
        self._connection = connection
        head = wire.render_container_request(
            self._invocation,
            path=b"/invocations",
            host=self._instance.address,
            length=self._size,
        )
        self._sent_at = monotonic()
        if len(self._parts) == 1 and self._size <= _HASH_AS_IT_COMES:
            connection.write(head + self._parts[0])
        else:
            connection.request_complete = False
            connection.write(head)
            self._next_part = 0
            self._held = False
            self._write_more()

    def _write_more(self) -> None:
        """Write some pieces of a large request, and leave the rest for another turn."""
        connection = self._connection
        if connection is None or connection.request_complete or self._held or not connection.is_usable:
            return
        first = self._next_part
        self._next_part = first + _PIECES_AT_ONCE
        connection.writelines(self._parts[first : self._next_part])
        if self._next_part >= len(self._parts):
            connection.request_complete = True
        else:
            self._front.turns.wait(self._write_more)

    def pause_request(self) -> None:
        self._held = True

    def resume_request(self) -> None:
        self._held = False
        self._front.turns.wait(self._write_more)

    def not_connected(self, error: BaseException) -> None:
        """The instance is down and nothing was sent, so another may have it."""
        self._connecting = None
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            self._fail(ServiceUnavailable(_NO_FILES))
            return
        self._give_instance_back()
        self._attempt()

    def _give_instance_back(self) -> None:
        """This instance cannot be reached. What is known of the variant's others may have changed meanwhile."""
        assert self._instance is not None
        assert self._route is not None
        assert self._variant is not None
        self._tried = (*self._tried, self._instance)
        self._release()
        route = self._front.table.find(*self._route.key)
        if route is not None:
            self._variant = route.by_name.get(self._variant.name, self._variant)

    def _no_instance(self, route: EndpointRoute, variant: VariantRoute) -> ServiceError:
        if route.provisioning and not variant.instances:
            return self.not_ready_error(
                f"The resources of variant {variant.name} of endpoint {route.name} are still being provisioned. "
                "Wait and try your request again."
            )
        tried = self._tried
        if any(instance not in tried and not instance.retired for instance in variant.instances):
            return ServiceUnavailable(
                f"Every instance of variant {variant.name} of endpoint {route.name} has all the invocations that it "
                f"takes at once ({variant.max_concurrency} from one gateway: "
                "max_concurrent_invocations_per_instance). Please try again."
            )
        return ServiceUnavailable(
            "A transient exception occurred while retrieving variant instances. Please try again. "
            f"(No instance of variant {variant.name} of endpoint {route.name} is reachable; "
            f"`moorage logs {route.name}` shows why.)"
        )

    # --- the container replies ------------------------------------------------------------------------

    def reply_head(self, status: int, headers: dict[bytes, bytes]) -> None:
        self._reply_status = status
        self._reply_headers = headers
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._front.settings.max_response_bytes:
            self._reply_too_large()

    def reply_data(self, chunk: bytes) -> None:
        parts = self._reply_parts
        parts.append(chunk)
        if len(parts) > 1:
            self._let_go_of_request()
            if len(chunk) < TINY:
                gather(parts)
        self._reply_size += len(chunk)
        if self._reply_size > self._front.settings.max_response_bytes:
            self._reply_too_large()

    def _let_go_of_request(self) -> None:
        """It is not sent again once a reply has begun: two large bodies need not be held at once."""
        if self._connection is not None and self._connection.request_complete:
            self._parts = []

    def reply_end(self) -> None:
        assert self._variant is not None
        replied_at = monotonic()
        self._connection = None
        self._release()
        self._front.timed_calls.discard(self)
        parts = self._reply_parts
        if self._reply_status < 300:
            lines = b"x-Amzn-Invoked-Production-Variant: %b\r\n%b" % (
                self._variant.name.encode(),
                wire.render_reply_headers(self.operation, self._reply_headers),
            )
            if self._reply_size <= _HASH_AS_IT_COMES:
                self._request.reply(200, lines, b"".join(parts))
            else:
                self._reply_in_pieces(lines)
        else:
            self._variant.counts.refused(self._reply_status)
            body = b"".join(parts[:_PIECES_OF_AN_ERROR])
            self._request.fail(model_errors.answered(self._origin(), self._reply_status, body))
        self._count_answer(replied_at)

    def _reply_in_pieces(self, lines: bytes) -> None:
        self._request.begin_reply(200, lines + b"Content-Length: %d\r\n" % self._reply_size)
        self._reply_parts.reverse()
        self._held = False
        self._send_more()

    def _send_more(self) -> None:
        """Send some pieces of a large reply, and leave the rest for another turn."""
        parts = self._reply_parts
        if not parts or self._held:
            return
        for _ in range(min(_PIECES_AT_ONCE, len(parts))):
            self._request.write(parts.pop())
        if parts:
            self._front.turns.wait(self._send_more)
        else:
            self._request.end_reply()

    def pause_reply(self) -> None:
        self._held = True

    def resume_reply(self) -> None:
        self._held = False
        self._front.turns.wait(self._send_more)

    def reply_broken(self, *, untouched: bool, reason: str) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        assert self._instance is not None
        if untouched and connection.reused:
            # The container closed an idle connection at the very moment: it never read the request.
            self._connecting = self._front.pool_of(self._instance).start(self, fresh=True)
        elif untouched and not self._tried:
            self._give_instance_back()
            self._attempt(otherwise=model_errors.no_response(self._origin(), reason))
        elif self._reply_status:
            self._fail(model_errors.body_not_loaded(self._origin(), self._reply_status, reason))
        else:
            self._fail(model_errors.no_response(self._origin(), reason))

    def reply_failed(self) -> None:
        self._connection = None
        self._fail(InternalFailure(OUR_FAULT))

    def expire(self) -> None:
        """The deadline has passed."""
        self._fail(model_errors.timed_out(self._origin()))

    def _reply_too_large(self) -> None:
        limit = self._front.settings.max_response_bytes
        self._fail(
            model_errors.body_not_loaded(
                self._origin(), 500, f"The response is larger than the limit of {limit} bytes."
            )
        )

    # --- ways out -------------------------------------------------------------------------------------

    def _fail(self, error: ServiceError) -> None:
        assert self._variant is not None
        self._variant.counts.failed(by_model=isinstance(error, ModelError))
        self._give_up()
        self._request.fail(error)

    def _count_answer(self, replied_at: float) -> None:
        """The container's reply was complete at this time, and the client's is now."""
        assert self._variant is not None
        model_seconds = replied_at - self._sent_at
        overhead_seconds = monotonic() - self._request.received_at - model_seconds
        self._variant.counts.answered(model_seconds, overhead_seconds)

    def _give_up(self) -> None:
        self._front.timed_calls.discard(self)
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop()
        self._release()

    def _release(self) -> None:
        instance, self._instance = self._instance, None
        if instance is not None:
            self._front.table.release(instance)

    def _origin(self) -> model_errors.Origin:
        assert self._route is not None
        assert self._variant is not None
        return model_errors.Origin(
            account_id=self._route.account_id,
            region=self._route.region,
            endpoint_name=self._route.name,
            container_hostname=self._variant.container_hostname,
        )


def parse_invocation(operation: wire.Operation, raw_name: bytes, request: Request) -> wire.Invocation:
    """What the request asks for. Raises `ValidationError`."""
    known = request.known
    if known is None:
        return wire.parse(operation, raw_name, request.headers)
    if known.invocation is None:
        known.invocation = wire.parse(operation, raw_name, request.headers)
    return known.invocation


def route_by_arn(
    table: RoutingTable, account_id: str, endpoint_name: str, no_table_error: type[ServiceError]
) -> EndpointRoute:
    """The route of an endpoint that the caller's account does not have under this name: it may be an ARN.

    Raises:
        ServiceError: what a client is told whose endpoint the table does not have.
    """
    route = table.find_by_arn(endpoint_name)
    if route is not None:
        return route
    if table.complete:
        address = address_of(endpoint_name)
        if address is not None:
            account_id, endpoint_name = address.account_id, address.name
        raise ValidationError(
            f"Endpoint {endpoint_name} of account {account_id} not found.", ErrorCode="ENDPOINT_NOT_FOUND"
        )
    raise no_table_error(
        "The gateway has not received its routing table from the controller yet. "
        "If this lasts, the server's log says why the controller is not running."
    )


def _check_features(route: EndpointRoute, invocation: wire.Invocation) -> None:
    """Refuse what this endpoint does not have, with the real service's words where they are known."""
    if route.asynchronous:
        raise ValidationError(
            f"Endpoint {route.name} of account {route.account_id} is an asynchronous endpoint: "
            "it accepts InvokeEndpointAsync only.",
            ErrorCode="ENDPOINT_IS_ASYNCHRONOUS",
        )
    if _FEATURES.isdisjoint(invocation.members):
        return
    if invocation.has(b"x-amzn-sagemaker-target-model"):
        raise ValidationError(
            f"Endpoint {route.name} is not a multi-model endpoint and does not support target model header.",
            ErrorCode="TARGET_MODEL_HEADER_NOT_SUPPORTED",
        )
    if invocation.has(b"x-amzn-sagemaker-inference-component"):
        raise ValidationError(
            "Inference Component Name header is not allowed for endpoints to which you dont plan to deploy "
            "inference components. Please remove the Inference Component Name header and try again.",
            ErrorCode="INFERENCE_COMPONENT_NAME_NOT_ALLOWED",
        )
    if invocation.has(b"x-amzn-sagemaker-target-container-hostname"):
        raise ValidationError(
            f"Endpoint {route.name} is not a multi-container endpoint with direct invocation and does not "
            "support target container hostname header.",
            ErrorCode="TARGET_CONTAINER_HOSTNAME_HEADER_NOT_SUPPORTED",
        )
    if invocation.has(b"x-amzn-sagemaker-enable-explanations"):
        raise ValidationError(
            f"Endpoint {route.name} has no ExplainerConfig and does not support enable explanations header.",
            ErrorCode="ENABLE_EXPLANATIONS_HEADER_NOT_SUPPORTED",
        )
