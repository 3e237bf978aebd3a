"""Memory for request bodies whose signature cannot be compared yet.

A signature covers the body's hash. A client that declares the hash in the head is verified by its head; of any other
(boto3, for invocations) the whole body is needed first. An access key id is no secret, so a client that has only that
could make the gateway keep a body for every connection that it opens. Therefore a body of more than 64 KiB that does
not arrive with its head reserves its length here, and is read from the socket once that is granted.

* Two limits hold: one for all bodies, one for those of one IP address. A body that is larger than a limit is granted
  while nothing else counts toward that limit.
* The access keys of an IP address take turns with each other and with those of other addresses. The bodies of one
  key from one address are granted in the order in which they came.
* While a body waits for memory that another one has, that one has to arrive at a rate that completes it within
  `SLOWEST_SECONDS`. A body that falls behind during one second is given up. So a client that holds memory and sends
  nothing holds it for little more than a second, and one that sends just enough for `SLOWEST_SECONDS`.
"""

import logging
import sys
from collections import deque
from typing import ClassVar, Protocol

from moorage.auth.verifier import Claim, Verifier
from moorage.errors import ServiceUnavailable
from moorage.gateway.request import Request

SMALL_BODY = 64 * 1024
"""Bodies of at most this many bytes reserve nothing: the number of connections bounds them."""

SLOWEST_SECONDS = 20.0
LONGEST_WAIT_SECONDS = 30.0
"""How long a body may wait to be granted. More than `SLOWEST_SECONDS`, so that waiting is of use."""

_JUDGED_AFTER_SECONDS = 1.0
logger = logging.getLogger(__name__)


class OutOfBodyMemory(ServiceUnavailable):
    """There is no memory for the body now; the reply says when to try again."""

    retry_after_seconds: ClassVar[int] = 1


class Owner(Protocol):
    """The connection that a body arrives at."""

    def memory_granted(self) -> None:
        """The body may be read. Not called for a reservation that is granted at once."""

    def memory_withdrawn(self) -> None:
        """Give the body up; must `release`."""


class Reservation:
    """Of the memory for one body."""

    __slots__ = ("granted", "marked", "marked_at", "owner", "queue", "received", "size", "waited")

    def __init__(self, owner: Owner, queue: "_Queue", size: int) -> None:
        self.owner = owner
        self.queue = queue
        self.size = size
        self.granted = False
        self.waited = False
        self.received = 0
        """How many bytes of the body have been read since the reservation was made; its owner counts them."""
        self.marked = 0  # what it had received at `marked_at`
        self.marked_at = -1.0


class _Address:
    __slots__ = ("held", "name", "queues")

    def __init__(self, name: str) -> None:
        self.name = name
        self.held = 0
        self.queues: dict[str, _Queue] = {}
        """Of bodies that wait, by the access key id that they claim; the one that was served last is the last."""


class _Queue:
    """The bodies that wait, of one access key and one address."""

    __slots__ = ("address", "key_id", "lined_up", "waiting")

    def __init__(self, address: _Address, key_id: str) -> None:
        self.address = address
        self.key_id = key_id
        self.waiting: dict[Reservation, None] = {}  # in the order of arrival
        self.lined_up = False


_NO_QUEUE = _Queue(_Address(""), "")


class UnverifiedBodies:
    """The reservations of this process. `reserve` and `release` take a time that grows only with the number of keys
    that one address uses."""

    def __init__(self, *, limit: int, limit_of_one_address: int) -> None:
        """Limits in bytes; `limit_of_one_address` 0: that of all."""
        self._limit = limit
        self._limit_of_one = limit_of_one_address or sys.maxsize
        self._held = 0
        self._granted: dict[Reservation, None] = {}
        self._waiting = 0
        self._addresses: dict[str, _Address] = {}
        self._line: deque[_Queue] = deque()
        """The queues that take turns: those whose next body the limit of its address allows. While there are any, the
        limit of all is reached."""
        self._watching = False  # whether what is granted has been marked since some body waits
        self._peak = 0

    def __repr__(self) -> str:
        return f"<UnverifiedBodies {self._held} bytes of {len(self._granted)}, {self._waiting} waiting>"

    def reserve(self, owner: Owner, address: str, key_id: str, size: int) -> Reservation:
        """Memory of `size` bytes, for a body that comes from `address` and claims to be signed with this access key.
        If it is not `granted` at once, its owner is told when it is. Must be released, but for a size of 0."""
        if not size:
            reservation = Reservation(owner, _NO_QUEUE, 0)
            reservation.granted = True
            return reservation
        one = self._addresses.get(address)
        if one is None:
            one = self._addresses[address] = _Address(address)
        queue = one.queues.get(key_id)
        if queue is None:
            queue = one.queues[key_id] = _Queue(one, key_id)
        reservation = Reservation(owner, queue, size)
        queue.waiting[reservation] = None
        self._waiting += 1
        self._line_up(queue)
        self._grant()
        reservation.waited = not reservation.granted
        return reservation

    def release(self, reservation: Reservation) -> None:
        """The body is verified, refused or broken off. May be told twice."""
        queue = reservation.queue
        address = queue.address
        if reservation in self._granted:
            del self._granted[reservation]
            self._held -= reservation.size
            address.held -= reservation.size
        elif reservation in queue.waiting:
            del queue.waiting[reservation]
            self._waiting -= 1
            if not queue.waiting:
                del address.queues[queue.key_id]
        else:
            return
        for each in address.queues.values():
            self._line_up(each)
        if not address.held and not address.queues:
            del self._addresses[address.name]
        self._grant()

    def look(self, now: float) -> int:
        """Give up the bodies that hold memory which others wait for, and do not arrive. Called a few times a second
        with the loop's time; returns how many were given up."""
        if not self._waiting:
            self._watching = False
            return 0
        given_up = 0
        anew = not self._watching
        self._watching = True
        for reservation in list(self._granted):
            seconds = now - reservation.marked_at
            if anew or reservation.marked_at < 0.0:
                _mark(reservation, now)
            elif seconds >= _JUDGED_AFTER_SECONDS and reservation in self._granted:
                too_slow = (
                    reservation.received - reservation.marked < reservation.size * seconds / SLOWEST_SECONDS
                )
                if too_slow and (self._line or reservation.queue.address.queues):
                    given_up += 1
                    try:
                        reservation.owner.memory_withdrawn()
                    except Exception:  # a fault in giving one up must not keep the others from being given up
                        logger.exception("a body could not be given up")
                else:
                    _mark(reservation, now)
        return given_up

    def take_peak(self) -> int:
        """The most bytes that were granted at one time since this was asked last."""
        peak, self._peak = self._peak, self._held
        return peak

    def _line_up(self, queue: _Queue) -> None:
        if not queue.lined_up:
            queue.lined_up = True
            self._line.append(queue)

    def _grant(self) -> None:
        while self._line:
            queue = self._line[0]
            address = queue.address
            first = next(iter(queue.waiting), None)
            if first is None or (address.held and address.held + first.size > self._limit_of_one):
                self._line.popleft()
                queue.lined_up = False
                continue
            if self._held and self._held + first.size > self._limit:
                return  # nobody overtakes, or a large body might wait for ever
            self._line.rotate(-1)
            del queue.waiting[first]
            del address.queues[queue.key_id]
            if queue.waiting:  # behind the address's other queues
                address.queues[queue.key_id] = queue
            self._waiting -= 1
            address.held += first.size
            self._held += first.size
            self._peak = max(self._peak, self._held)
            self._granted[first] = None
            first.granted = True
            if first.waited:
                first.owner.memory_granted()


def unverified_body(verifier: Verifier, request: Request, claim: Claim, most: int) -> tuple[str, int]:
    """The access key id that is claimed, and how many bytes of the body are kept before the signature can be
    compared. None are if the client declared the body's hash: then the signature is compared now, and only the hash
    is left to be compared. `most` is for an unknown length.

    Raises:
        ServiceError: the signature is not right.
    """
    declared = claim.payload_hash
    if declared is not None:
        verifier.verify(claim, request.method, request.target, request.headers, declared.decode("latin-1"))
        return "", 0
    length = request.content_length
    return claim.signed_by.scope.access_key_id, most if length is None else length


def _mark(reservation: Reservation, now: float) -> None:
    reservation.marked = reservation.received
    reservation.marked_at = now
