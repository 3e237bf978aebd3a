"""`GET /_moorage/metrics` for those who collect metrics, which sign nothing: they show the token of the settings.

Whoever signs is let in as to every other private route, and never comes here.
"""

import hmac
from typing import TYPE_CHECKING

from moorage.errors import AccessDeniedException, ServiceError, ServiceUnavailable
from moorage.gateway.relay import Relay
from moorage.gateway.request import Request
from moorage.upstream import UpstreamConnection

if TYPE_CHECKING:
    from moorage.gateway.front import GatewayFront

PATH = b"/_moorage/metrics"
_BEARER = b"bearer "


def shows_token(request: Request) -> bool:
    """Whether a request has a bearer token, be it the right one or not."""
    return request.headers.get(b"authorization", b"")[: len(_BEARER)].lower() == _BEARER


class ScrapeCall(Relay):
    """Asks the controller for the metrics of everything."""

    def __init__(self, front: "GatewayFront", request: Request) -> None:
        super().__init__(front, request, request.target, front.controller)
        self._repeatable = True
        _check(request, front.settings.metrics_token.encode())

    def end(self) -> None:
        self._connect()

    def connected(self, connection: UpstreamConnection) -> None:
        self._connecting = None
        self._connection = connection
        connection.without_body = self._request.method == b"HEAD"
        asked_by = [
            (b"x-moorage-scraper", b"true"),
            (b"x-moorage-source-ip", self._request.client_address.encode()),
            (b"x-amzn-requestid", self._request.request_id),
        ]
        connection.write(self._head(b"Content-Length: 0\r\n", asked_by))

    def _broken_off(self, reason: str) -> ServiceError:
        return ServiceUnavailable(f"The part of the server that has the metrics broke off: {reason}.")

    def pause_request(self) -> None:
        """There is no body."""

    def resume_request(self) -> None:
        """Nothing was paused."""


def _check(request: Request, token: bytes) -> None:
    """Raises `AccessDeniedException`."""
    if request.method not in (b"GET", b"HEAD"):
        raise AccessDeniedException(
            "The token of the setting metrics_token is for GET /_moorage/metrics only."
        )
    if not token:
        raise AccessDeniedException(
            "This server has no setting metrics_token, so no token opens /_moorage/metrics: sign the request, or "
            "set one."
        )
    given = request.headers[b"authorization"][len(_BEARER) :].strip()
    if not hmac.compare_digest(given, token):
        raise AccessDeniedException("The bearer token is not that of the setting metrics_token.")
