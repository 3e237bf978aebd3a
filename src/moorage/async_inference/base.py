"""Asynchronous invocations as values, and the queue that keeps them: the seam between accepting and running.

An invocation is accepted once (`put`), claimed by whoever runs it (`claim`), and finished once. One process claims
at a time: the controller that leads. What it has claimed nobody else can claim, for as long as that takes and
whatever any clock says; `recover` gives back what an earlier process left claimed. So an invocation runs at least
once, and finishes exactly once: `finish` of a claim that was lost does nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class Status(StrEnum):
    """`Completed`, `Failed` and `Expired` are final, and spelled as in notifications."""

    QUEUED = "Queued"
    RUNNING = "Running"
    COMPLETED = "Completed"
    FAILED = "Failed"
    EXPIRED = "Expired"


MOST_DELAY_SECONDS = 60.0
"""The longest pause between two attempts."""

FINAL = (Status.COMPLETED, Status.FAILED, Status.EXPIRED)

EndpointKey = tuple[str, str]
"""Account and name of an endpoint."""


class QueueOverloaded(Exception):
    """More invocations wait to be stored than the process may hold in memory: the database does not keep up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncInvocation:
    """What was accepted. Its input is either `input_location` or `body`; locations are `s3://` URLs.

    `success_topic`, `error_topic` and `include_response_in` are what the endpoint's configuration said when it was
    accepted. `role_arn` is the execution role that reads the input and writes the result; None: the account itself.
    `role_exists`: it did when the model was made.
    """

    invocation_id: str
    account_id: str
    endpoint_name: str
    inference_id: str
    received_time: datetime
    expires_time: datetime
    timeout_seconds: int
    content_type: str | None = None
    accept: str | None = None
    custom_attributes: str | None = None
    input_location: str | None = None
    body: bytes | None = None
    output_location: str | None = None
    failure_location: str | None = None
    success_topic: str | None = None
    error_topic: str | None = None
    role_arn: str | None = None
    role_exists: bool = False
    include_response_in: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An invocation in the hands of one dispatcher, until that finishes, releases or abandons it.

    `attempt` counts claims, this one included. `deaths` counts the containers that died of it. `first_claimed_time`
    is that of attempt 1. `retrying_since` is when the object store was first found out of order, by the clock of
    whoever released it.
    """

    invocation: AsyncInvocation
    token: str
    attempt: int
    deaths: int
    first_claimed_time: datetime
    retrying_since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A message that is owed to a topic. It is kept in the same transaction as what it tells of."""

    account_id: str
    topic_arn: str
    message: str
    invocation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an invocation ended. `status` is a final one; `reason` says why it failed or expired."""

    status: Status
    finished_time: datetime
    reason: str | None = None
    content_type: str | None = None
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An invocation as the queue has it now, for people to look at."""

    invocation: AsyncInvocation
    status: Status
    attempts: int
    deaths: int
    first_claimed_time: datetime | None
    finished_time: datetime | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """One endpoint's queue. Counts by status (final ones as long as they are kept), the age of the oldest that is
    not finished, and how many were accepted and finished in the last minute."""

    account_id: str
    endpoint_name: str
    counts: dict[Status, int]
    oldest_received_time: datetime | None
    received_last_minute: int
    finished_last_minute: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """How many invocations of an endpoint wait or run, and since when the oldest of them."""

    account_id: str
    endpoint_name: str
    number: int
    oldest_received_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """How many invocations one transaction forgot, and the seconds that it took."""

    number: int
    seconds: float


class Queue(Protocol):
    """Durable: what a method has returned for survives the death of every process."""

    async def put(self, invocation: AsyncInvocation) -> None:
        """Accept. Concurrent puts share one commit.

        Raises:
            QueueOverloaded: it was not accepted.
        """

    async def settled(self) -> None:
        """Return when no `put` that has begun is still under way."""

    async def claim(self, account_id: str, endpoint_name: str, *, most: int) -> Sequence[Claim]:
        """Up to `most` invocations of an endpoint, those first that have waited longest."""

    async def claim_expired(self, *, most: int) -> Sequence[Claim]:
        """Up to `most` invocations, of any endpoint, whose time to live is over and that nobody holds."""

    async def take(self, account_id: str, invocation_id: str) -> Claim | None:
        """Claim this one, whatever waits before it. None if it is held, finished, or not there."""

    async def release(
        self,
        claim: Claim,
        *,
        delay_seconds: float = 0.0,
        died: bool = False,
        retrying_since: datetime | None = None,
        unattempted: bool = False,
    ) -> bool:
        """Give back, to be claimed again after the delay, which is `MOST_DELAY_SECONDS` at most. `died`: its
        container did. `unattempted`: it reached no container, so the attempt does not count. False if the claim was
        lost."""

    def abandon(self, claim: Claim) -> None:
        """The holder has ended without an end of the invocation, or with one: `recover` gives back what is not
        finished."""

    async def recover(self) -> Sequence[EndpointKey]:
        """Give back what is claimed and in nobody's hands: claims of a process that has ended, and abandoned ones.
        The endpoints that have some."""

    async def finish(self, claim: Claim, outcome: Outcome) -> bool:
        """End it, with the notices of its end. False, and nothing done, if the claim was lost. The body of a
        completed one is dropped; one that failed or expired keeps it, to be run again on demand."""

    async def seconds_to_claimable(self, account_id: str, endpoint_name: str) -> float | None:
        """How long until an invocation can be claimed (0: now); None if none is queued."""

    async def seconds_to_expiry(self) -> float | None:
        """How long until the next time to live of a queued one is over that is not over yet."""

    async def has_unfinished(self, account_id: str, endpoint_name: str) -> bool:
        """Whether any invocation of the endpoint is queued or running."""

    async def backlogged(self) -> Sequence[EndpointKey]:
        """The endpoints that have unfinished invocations."""

    async def unfinished(self) -> Sequence[Unfinished]:
        """Of the endpoints of all accounts, those that have some."""

    async def backlogs(self, account_id: str) -> Sequence[Backlog]:
        """The queues of an account's endpoints, by name."""

    async def records(
        self,
        account_id: str,
        *,
        endpoint_name: str | None = None,
        status: Status | None = None,
        before: int | None = None,
        most: int = 100,
    ) -> Sequence[tuple[int, Record]]:
        """Records without their bodies, the newest first, each with a number that continues the list (`before`)."""

    async def find(self, account_id: str, id: str) -> Sequence[Record]:
        """By invocation id or inference id; an inference id may be given to several."""

    async def requeue(self, account_id: str, invocation_id: str, *, expires_time: datetime) -> bool:
        """Run a failed or expired one again, as if it had just been accepted. False if it is neither."""

    async def finished(
        self,
        *,
        before: datetime,
        account_id: str | None = None,
        endpoint_name: str | None = None,
        most: int,
    ) -> Sequence[int]:
        """The numbers of up to `most` invocations that finished before then, the first ones first."""

    async def forget(self, numbers: Sequence[int], *, finished_before: datetime) -> Forgotten:
        """Forget those of these invocations that finished before then, in one transaction."""
