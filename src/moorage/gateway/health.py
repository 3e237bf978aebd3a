"""`GET /_moorage/health`: whether this server is ready, for start-up scripts and load balancers."""

import json
from typing import TYPE_CHECKING

from moorage.gateway.request import Call, Request

if TYPE_CHECKING:
    from moorage.gateway.front import GatewayFront


class HealthCall(Call):
    """200 once the routing table has been received from the controller, 503 before. No authentication.

    The body tells more: `controller` and `database` say whether each is `available`, and since when if it is not.
    Endpoints in service keep answering without them, so they are no reason for another status.
    """

    def __init__(self, front: "GatewayFront", request: Request) -> None:
        self._front = front
        self._request = request

    def end(self) -> None:
        ready = self._front.table.complete
        status = "ready" if ready else "starting"
        body = json.dumps({"status": status, **self._front.control_plane}).encode()
        self._request.reply(200 if ready else 503, b"Content-Type: application/json\r\n", body)
