"""`GET /_moorage/container-credentials/…`: containers ask for the credentials of their execution role.

They have nothing to sign with yet; the path holds a secret of the instance. The controller knows it, and whether the
instance is there. Containers call from this machine, so nobody else's request gets as far as that.
"""

import ipaddress
import re
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


def begin(front: "GatewayFront", request: Request) -> Call:
    if (
        request.method != b"GET"
        or not _TARGET.fullmatch(request.target)
        or not ipaddress.ip_address(request.client_address).is_loopback
    ):
        return _NoCredentials(request)
    return _CredentialsCall(front, request)


class _NoCredentials(Call):
    def __init__(self, request: Request) -> None:
        self._request = request

    def end(self) -> None:
        self._request.reply(404, b"Content-Type: application/json\r\n", NOT_FOUND)


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
