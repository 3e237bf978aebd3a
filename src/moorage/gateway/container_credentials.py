"""`GET /_moorage/container-credentials/…`: containers ask for the credentials of their execution role.

They have nothing to sign with yet; the path holds a secret of the instance. The controller knows it, and whether the
instance is there. Containers call from this machine, so nobody else's request gets as far as that.
"""

import ipaddress
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from moorage.config import CONTAINER_CREDENTIALS_PATH
from moorage.errors import ServiceError, ServiceUnavailable
from moorage.gateway.relay import Relay
from moorage.gateway.request import Call, Request
from moorage.upstream import UpstreamConnection

if TYPE_CHECKING:
    from moorage.gateway.front import GatewayFront

NOT_FOUND = b'{"message":"There are no such credentials."}'
"""In the words of `moorage.controller.container_credentials`."""
_TARGET = re.compile(re.escape(CONTAINER_CREDENTIALS_PATH.encode()) + rb"i-[0-9a-f]{17}/[A-Za-z0-9_-]{43}")


_RATE = 50.0
_BURST = 500
"""Requests of one address: of a container with a network of its own, or of all on the machine's network. Each worker
process asks at its start and then some times an hour, and a container that asks without end is not to keep the
controller from its work."""
_MOST_ADDRESSES = 10_000
_TOO_MANY = b'{"message":"Too many requests for credentials."}'


class Pace:
    """How fast each address may ask: a token bucket, of which it is known when it will be full again."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._full_at: dict[str, float] = {}

    def admits(self, address: str) -> bool:
        """Whether it may ask now; then it has."""
        now = self._clock()
        full_at = max(self._full_at.get(address, now), now)
        if full_at - now > (_BURST - 1) / _RATE:
            return False
        if len(self._full_at) >= _MOST_ADDRESSES:
            self._full_at = {each: full for each, full in self._full_at.items() if full > now}
        self._full_at[address] = full_at + 1 / _RATE
        return True


def begin(front: "GatewayFront", request: Request) -> Call:
    if (
        request.method != b"GET"
        or not _TARGET.fullmatch(request.target)
        or not ipaddress.ip_address(request.client_address).is_loopback
    ):
        return _Refusal(request, 404, NOT_FOUND)
    if not front.credentials_pace.admits(request.client_address):
        return _Refusal(request, 429, _TOO_MANY)
    return _CredentialsCall(front, request)


class _Refusal(Call):
    def __init__(self, request: Request, status: int, body: bytes) -> None:
        self._request = request
        self._status = status
        self._body = body

    def end(self) -> None:
        self._request.reply(self._status, b"Content-Type: application/json\r\n", self._body)


class _CredentialsCall(Relay):
    """Asks the controller."""

    def __init__(self, front: "GatewayFront", request: Request) -> None:
        super().__init__(front, request, request.target, front.controller)
        self._repeatable = True

    def end(self) -> None:
        self._connect()

    def connected(self, connection: UpstreamConnection) -> None:
        self._connecting = None
        self._connection = connection
        asked_by = [
            (b"x-moorage-operation", b"GetContainerCredentials"),
            (b"x-amzn-requestid", self._request.request_id),
        ]
        connection.write(self._head(b"Content-Length: 0\r\n", asked_by))

    def _broken_off(self, reason: str) -> ServiceError:
        return ServiceUnavailable(f"The part of the server that has the credentials broke off: {reason}.")

    def pause_request(self) -> None:
        """There is no body."""

    def resume_request(self) -> None:
        """Nothing was paused."""
