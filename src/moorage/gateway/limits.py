"""How much the owner of one access key may ask of this gateway: so many requests a second, so many at once.

It is asked once the signature is verified, so that nobody uses up what is somebody else's, and before the request
goes any further. To decide and to reserve is one step; what was reserved is given back when the reply is complete or
the connection is lost, whichever comes first. The server's own processes, which have a listener of their own, are not
limited.

The rate is that of a token bucket that holds the tokens of one second, and one at least. All there is to know of such
a bucket is when it will be full again.
"""

import asyncio
import math
from collections.abc import Callable, Iterator

from moorage.auth.credentials import AccessKey
from moorage.auth.sessions import Session
from moorage.config import Settings
from moorage.errors import ThrottlingException
from moorage.gateway import http
from moorage.gateway.client_connection import ClientConnection, Visitors
from moorage.gateway.request import Front, Request
from moorage.gateway.unverified import UnverifiedBodies
from moorage.turns import Turns

_MOST_IDLE_SHARES = 10_000
_ROUNDING = 1e-6


class _Share:
    """What one key has taken."""

    __slots__ = ("full_at", "in_flight")

    def __init__(self) -> None:
        self.full_at = 0.0
        self.in_flight = 0


class Limits:
    """The shares of all keys. A limit of 0 is none."""

    def __init__(
        self, *, requests_per_second: float, concurrent_requests: int, clock: Callable[[], float]
    ) -> None:
        self._clock = clock
        self._rate = requests_per_second
        self._interval = 1.0 / requests_per_second if requests_per_second else 0.0
        self._furthest = max(1.0 - self._interval, 0.0) + _ROUNDING
        self._most = concurrent_requests or math.inf
        self._shares: dict[str, _Share] = {}
        self._look_for_idle_at = _MOST_IDLE_SHARES
        self._held: dict[Request, _Share] = {}

    def __repr__(self) -> str:
        return f"<Limits {len(self._shares)} keys, {len(self._held)} requests in flight>"

    def admit(self, request: Request, key: AccessKey) -> None:
        """Reserve a place for the request, whose signature by this key is verified, until `release`.

        Raises:
            ThrottlingException: the key has used up its share; nothing is reserved.
        """
        if not request.limited:
            return
        share = self._shares.get(key.access_key_id)
        if share is None:
            share = self._begin_share(key)
        if share.in_flight >= self._most:
            raise ThrottlingException(
                f"Rate exceeded: {self._most} requests of this access key are in progress, which is all that "
                "max_concurrent_requests_per_key allows it at once."
            )
        now = self._clock()
        full_at = share.full_at
        if full_at < now:
            full_at = now
        elif full_at - now > self._furthest:
            raise ThrottlingException(
                f"Rate exceeded: max_requests_per_second_per_key allows this access key {self._rate:g} requests per "
                "second."
            )
        share.full_at = full_at + self._interval
        share.in_flight += 1
        self._held[request] = share

    def release(self, request: Request) -> None:
        """The request is over, whether or not it was ever admitted. May be told twice."""
        share = self._held.pop(request, None)
        if share is not None:
            share.in_flight -= 1

    def _begin_share(self, key: AccessKey) -> _Share:
        """Sessions are as many as anyone likes to open, so those of one user or role have one share."""
        shares = self._shares
        if len(shares) >= self._look_for_idle_at:
            now = self._clock()
            self._shares = shares = {
                name: share for name, share in shares.items() if share.in_flight or share.full_at > now
            }
            self._look_for_idle_at = max(_MOST_IDLE_SHARES, 2 * len(shares))
        owner = key.identity_arn if isinstance(key, Session) else key.access_key_id
        share = shares[key.access_key_id] = shares.setdefault(owner, _Share())
        return share


class LimitedConnection(ClientConnection):
    """A connection whose requests are limited."""

    __slots__ = ("_limits",)

    def __init__(
        self,
        *,
        limits: Limits,
        front: Front,
        turns: Turns,
        settings: Settings,
        connections: set[ClientConnection],
        visitors: Visitors,
        bodies: UnverifiedBodies,
        all_closed: asyncio.Event,
        opening: http.ReplyOpening,
        request_ids: Iterator[bytes],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(
            front=front,
            turns=turns,
            settings=settings,
            connections=connections,
            visitors=visitors,
            bodies=bodies,
            all_closed=all_closed,
            opening=opening,
            request_ids=request_ids,
            loop=loop,
        )
        self.limited = True
        self._limits = limits

    def finish(self, request: Request) -> None:
        self._limits.release(request)
        super().finish(request)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._active is not None:
            self._limits.release(self._active)
        super().connection_lost(exc)


def limits_of(settings: Settings, clock: Callable[[], float]) -> Limits | None:
    """None when the settings have no limits, so that nothing is asked then."""
    if not settings.limits_keys:
        return None
    return Limits(
        requests_per_second=settings.max_requests_per_second_per_key,
        concurrent_requests=settings.max_concurrent_requests_per_key,
        clock=clock,
    )
