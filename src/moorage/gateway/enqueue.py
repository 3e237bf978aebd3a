"""InvokeEndpointAsync: the invocation is judged here, and accepted by the controller, which keeps the queue.

What the controller has read it may have accepted, whether or not its answer arrives. So it is sent again only when
the kernel says that it was not read; any other break leaves the outcome open, and the client is told so.
"""

import math
from typing import TYPE_CHECKING, ClassVar

from moorage.auth.credentials import AccessKey
from moorage.auth.verifier import Claim
from moorage.errors import ServiceError, ServiceUnavailable, ValidationError
from moorage.gateway.dispatch import route_by_arn
from moorage.gateway.relay import CollectedRelay
from moorage.gateway.request import Request
from moorage.routing.table import EndpointRoute
from moorage.wire import invocation as wire
from moorage.wire import validation

if TYPE_CHECKING:
    from moorage.gateway.front import GatewayFront

_LONGEST_BODY = 128_000
_REPLY_SECONDS = 30.0
_PERHAPS_ACCEPTED = (
    "The part of the server that queues invocations {}. The invocation may or may not have been accepted; "
    "if you send it again, it may run twice."
)


class EnqueueCall(CollectedRelay):
    """One call of InvokeEndpointAsync."""

    most_body_bytes: ClassVar[int] = _LONGEST_BODY

    def __init__(self, front: "GatewayFront", request: Request, claim: Claim, raw_name: bytes) -> None:
        super().__init__(front, request, claim, front.controller)
        self._raw_name = raw_name
        self.deadline = math.inf

    def end(self) -> None:
        super().end()
        self.deadline = self._front.loop.time() + _REPLY_SECONDS
        self._front.timed_calls.add(self)

    def cancel(self) -> None:
        self._front.timed_calls.discard(self)
        super().cancel()

    def expire(self) -> None:
        """The deadline has passed."""
        self.cancel()
        self._fail(ServiceUnavailable(_PERHAPS_ACCEPTED.format("did not answer in time")))

    # --- the controller replies -----------------------------------------------------------------------

    def reply_end(self) -> None:
        self._front.timed_calls.discard(self)
        super().reply_end()

    def reply_broken(self, *, untouched: bool, reason: str) -> None:
        if untouched and self._connection is not None and not self._connection.reused:
            # It died with the connection still waiting to be accepted, and will be back.
            self._connection = None
            self.not_connected(ConnectionResetError(reason))
        else:
            super().reply_broken(untouched=untouched, reason=reason)

    def _fail(self, error: ServiceError) -> None:
        self._front.timed_calls.discard(self)
        super()._fail(error)

    def _broken_off(self, reason: str) -> ServiceError:
        return ServiceUnavailable(_PERHAPS_ACCEPTED.format(f"broke off before it had answered: {reason}"))

    # --- the request ----------------------------------------------------------------------------------

    def _check_size(self, size: int) -> None:
        if size > _LONGEST_BODY:
            too_long = validation.violation("***", "body", validation.at_most_long(_LONGEST_BODY))
            raise ValidationError(validation.describe([too_long]))

    def _render(self, key: AccessKey, body: bytes) -> bytes:
        invocation = wire.parse(wire.ASYNC, self._raw_name, self._request.headers)
        self._front.authorize_invocation(
            self._request, key, "sagemaker:InvokeEndpointAsync", invocation.endpoint_name
        )
        _check_input(invocation, body)
        route = self._route(key.account_id, invocation.endpoint_name)
        headers = {
            b"host": b"controller",
            b"x-moorage-operation": wire.ASYNC.name.encode(),
            b"x-moorage-account-id": route.account_id.encode(),
            b"x-moorage-principal-arn": key.principal_arn.encode(),
            b"x-moorage-endpoint-name": route.name.encode(),
            b"x-amzn-requestid": self._request.request_id,
            **invocation.members,
            b"content-length": b"%d" % len(body),
        }
        lines = [name + b": " + value + b"\r\n" for name, value in headers.items()]
        return b"".join([b"POST /async-invocations HTTP/1.1\r\n", *lines, b"\r\n", body])

    def _route(self, account_id: str, endpoint_name: str) -> EndpointRoute:
        """The queue, and all that follows from an invocation, are those of the endpoint's account."""
        table = self._front.table
        route = table.find(account_id, endpoint_name)
        if route is None:
            route = route_by_arn(table, account_id, endpoint_name, ServiceUnavailable)
        if not route.asynchronous:
            raise ValidationError(
                f"Endpoint {route.name} of account {route.account_id} is not an asynchronous endpoint: "
                "it accepts InvokeEndpoint and InvokeEndpointWithResponseStream.",
                ErrorCode="ENDPOINT_IS_NOT_ASYNCHRONOUS",
            )
        return route


def _check_input(invocation: wire.Invocation, body: bytes) -> None:
    """An empty body is none: HTTP cannot tell the two apart."""
    by_location = invocation.has(b"x-amzn-sagemaker-inputlocation")
    if by_location and body:
        raise ValidationError(
            "InputLocation and Body are mutually exclusive, and the request has both: give exactly one of them.",
            ErrorCode="INPUT_LOCATION_AND_BODY_NOT_ALLOWED",
        )
    if not by_location and not body:
        raise ValidationError(
            "The request has neither an InputLocation nor a Body: give exactly one of them.",
            ErrorCode="INPUT_LOCATION_OR_BODY_MISSING",
        )
