"""One claimed invocation, from its input to exactly one of output object, failure object, expiry.

An attempt writes its object first and then finishes the claim. If it dies in between, the next attempt runs the
invocation again, replaces an object of the same kind, and removes one of the other kind before it finishes: so there
is never more than one when the invocation is finished.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from moorage.async_inference import messages
from moorage.async_inference.base import AsyncInvocation, Claim, Outcome, Queue, Status
from moorage.async_inference.container import ContainerCall, NotConnected, ReplyBroken
from moorage.clock import SteadyClock
from moorage.counts import InvocationCounts
from moorage.errors import ModelError
from moorage.resources import arn
from moorage.routing.table import EndpointRoute, Instance, VariantRoute
from moorage.storage.failures import DatabaseUnavailable
from moorage.storage.objects import (
    ObjectError,
    ObjectReader,
    Objects,
    ObjectStore,
    ObjectStoreUnavailable,
)
from moorage.wire import header_text, model_errors
from moorage.wire import invocation as wire

_LONGEST_REASON = 2048
_ERROR_BODY = 8192
_NOT_REACHED_SECONDS = 0.5
_AFTER_DEATH_SECONDS = 1.0
_FATE = b"x-moorage-invocation"
"""A header by which a container says that its error reply is not the model's answer: `interrupted` (the process that
ran the invocation ended inside it) or `not-started` (no process has begun it)."""
_LONGEST_PAUSE_SECONDS = 30.0
_DATABASE_PATIENCE_SECONDS = 120.0
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """`patience_seconds`: how long an S3 that does not answer is tried again. `most_deaths`: how many containers an
    invocation may take with it. `content_length_required`: refuse a chunked reply, as AWS does."""

    region: str
    patience_seconds: float
    most_deaths: int
    content_length_required: bool
    connect_timeout_seconds: float


@dataclass(slots=True)
class _Reply:
    """What is told of the container's reply: its type, and its first bytes for a notification."""

    content_type: str | None
    start: bytes = b""
    size: int = 0

    def take(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if len(self.start) < messages.MOST_RESPONSE_BYTES:
            self.start += chunk[: messages.MOST_RESPONSE_BYTES - len(self.start)]


class _Refused(Exception):
    """The invocation fails by a rule of ours; the text says which."""


class _Interrupted(Exception):
    """The container says that the process that ran the invocation ended inside it. `answer` is its error reply."""

    def __init__(self, answer: ModelError) -> None:
        super().__init__("its process ended")
        self.answer = answer


class _NotStarted(Exception):
    """The container says that no process of it has begun the invocation."""


class Attempts:
    """Runs claims and ends them. `notify` is called when a notice may be due."""

    def __init__(
        self,
        *,
        queue: Queue,
        objects: Objects,
        rules: Rules,
        notify: Callable[[], None],
        clock: SteadyClock | None = None,
    ) -> None:
        self._queue = queue
        self._objects = objects
        self._rules = rules
        self._notify = notify
        self._clock = clock or SteadyClock()
        self._started = self._clock()
        self.finished: Counter[tuple[str, str, Status]] = Counter()
        """How many have ended, by account, endpoint and how."""

    async def run(
        self, claim: Claim, route: EndpointRoute, variant: VariantRoute, instance: Instance
    ) -> None:
        """One attempt on an instance that the caller has reserved."""
        invocation = claim.invocation
        if invocation.expires_time <= self._clock.time_of_day():
            await self.expire(claim)
            return
        origin = model_errors.Origin(
            account_id=route.account_id,
            region=route.region,
            endpoint_name=route.name,
            container_hostname=variant.container_hostname,
        )
        try:
            async with asyncio.timeout(invocation.timeout_seconds):
                reply = await self._call(invocation, instance, origin, variant.counts)
        except TimeoutError:
            variant.counts.failed(by_model=True)
            await self.fail(claim, model_errors.timed_out(origin).message)
        except (NotConnected, _NotStarted):
            await self._queue.release(claim, delay_seconds=_NOT_REACHED_SECONDS, unattempted=True)
        except ReplyBroken as broken:
            variant.counts.failed(by_model=True)
            await self._after_death(claim, str(broken), origin)
        except _Interrupted as interrupted:
            await self._after_death(claim, str(interrupted), origin, interrupted.answer)
        except ModelError as error:
            await self.fail(claim, error.message, response=str(error.members["OriginalMessage"]))
        except ObjectStoreUnavailable as error:
            await self._try_later(claim, error)
        except (_Refused, ObjectError, FileNotFoundError) as error:
            await self.fail(claim, str(error))
        else:
            await self._complete(claim, reply)

    async def fail(self, claim: Claim, reason: str, *, response: str | None = None) -> bool:
        """End it as failed: the failure object, then the state. `response` is what the container said, for those who
        want it in the notification. False if the claim was lost meanwhile."""
        invocation = claim.invocation
        reason = reason[:_LONGEST_REASON].replace("\0", "")  # which no database takes in a text
        trouble = None
        if invocation.failure_location is not None:
            objects = self._objects_of(invocation)
            location, text = invocation.failure_location, reason.encode()
            trouble = await self._patiently(
                lambda: objects.put(location, text, content_type="text/plain; charset=utf-8")
            )
        if trouble is not None:
            reason = f"{reason} (The failure object is missing: {trouble})"[:_LONGEST_REASON]
            logger.warning("async invocation %s: no failure object: %s", invocation.invocation_id, trouble)
        await self._remove_output(claim)
        reply = None if response is None else _Reply(None, response.encode(), len(response.encode()))
        return await self._finish(claim, Status.FAILED, reason=reason, reply=reply)

    async def expire(self, claim: Claim) -> None:
        """Its time to live is over before a container had it (or has finished it)."""
        await self._remove_output(claim)
        await self._remove_failure(claim)
        until = claim.invocation.expires_time.strftime("%Y-%m-%d %H:%M:%S UTC")
        await self._finish(
            claim, Status.EXPIRED, reason=f"The request's time to live in the queue was over at {until}."
        )

    # --- the container --------------------------------------------------------------------------------

    async def _call(
        self,
        invocation: AsyncInvocation,
        instance: Instance,
        origin: model_errors.Origin,
        counts: InvocationCounts,
    ) -> _Reply:
        """Input to the container, its reply to the output object."""
        source = None
        objects = self._objects_of(invocation)
        if invocation.body is None:
            assert invocation.input_location is not None
            source = await objects.open(invocation.input_location)
        async with ContainerCall(
            instance, connect_timeout_seconds=self._rules.connect_timeout_seconds
        ) as call:
            sent_at = time.monotonic()
            call.send(_head(invocation, source, instance), _body(invocation, source))
            status = await call.reply()
            if status >= 300:
                body = await _read_some(call)
                counts.refused(status)
                counts.model_latency.observe(time.monotonic() - sent_at)
                answer = model_errors.answered(origin, status, body)
                match call.headers.get(_FATE):
                    case b"interrupted":
                        raise _Interrupted(answer)
                    case b"not-started":
                        raise _NotStarted
                raise answer
            if self._rules.content_length_required and b"content-length" not in call.headers:
                counts.failed(by_model=True)
                raise _Refused(
                    f"The response from container {origin.container_hostname} did not specify the required "
                    "Content-Length header"
                )
            content_type = header_text.decode(call.headers.get(b"content-type", b"application/octet-stream"))
            reply = _Reply(content_type)
            if invocation.output_location is None:
                while chunk := await call.read():
                    reply.take(chunk)
                counts.model_latency.observe(time.monotonic() - sent_at)
                return reply
            async with objects.writing(invocation.output_location, content_type=content_type) as file:
                while chunk := await call.read():
                    reply.take(chunk)
                    await file.write(chunk)
                counts.model_latency.observe(time.monotonic() - sent_at)
            return reply

    async def _after_death(
        self, claim: Claim, reason: str, origin: model_errors.Origin, answer: ModelError | None = None
    ) -> None:
        """The container, or its process, ended with the invocation inside. Once may be bad luck; more often the
        invocation is the cause. `answer` is what the container said of it, if it could."""
        deaths = claim.deaths + 1
        if deaths >= self._rules.most_deaths:
            detail = f"{reason}; so did {deaths} containers in a row" if deaths > 1 else reason
            await self.fail(claim, (answer or model_errors.no_response(origin, detail)).message)
        else:
            logger.warning(
                "async invocation %s: %s before it had replied (%d of %d times); it is tried again",
                claim.invocation.invocation_id,
                reason,
                deaths,
                self._rules.most_deaths,
            )
            await self._queue.release(claim, delay_seconds=_AFTER_DEATH_SECONDS, died=True)

    async def _try_later(self, claim: Claim, error: ObjectError) -> None:
        """The S3 does not answer. Others may be tried meanwhile; this one when it had time to come back."""
        now = self._clock()
        # The time in which nothing of ours was running does not count: the S3 may have been away as long.
        since = max(claim.retrying_since, self._started) if claim.retrying_since else now
        waited = (now - since).total_seconds()
        if waited >= self._rules.patience_seconds:
            await self.fail(claim, str(error))
            return
        logger.warning("async invocation %s is tried again: %s", claim.invocation.invocation_id, error)
        pause = min(max(1.0, waited), _LONGEST_PAUSE_SECONDS)
        await self._queue.release(claim, delay_seconds=pause, retrying_since=since)

    # --- the end --------------------------------------------------------------------------------------

    async def _complete(self, claim: Claim, reply: _Reply) -> None:
        await self._remove_failure(claim)
        await self._finish(claim, Status.COMPLETED, reply=reply)

    async def _finish(
        self, claim: Claim, status: Status, *, reason: str | None = None, reply: _Reply | None = None
    ) -> bool:
        now = self._clock.time_of_day()
        notices = messages.notices(
            claim.invocation,
            region=self._rules.region,
            status=status,
            event_time=now,
            reason=reason,
            content_type=reply.content_type if reply else None,
            response_body=reply.start if reply else None,
            response_complete=reply is not None and reply.size == len(reply.start),
        )
        outcome = Outcome(
            status=status,
            finished_time=now,
            reason=reason,
            content_type=reply.content_type if reply else None,
            notices=notices,
        )
        finished = await self._store(claim, outcome)
        if finished:
            self.finished[claim.invocation.account_id, claim.invocation.endpoint_name, status] += 1
        if notices:
            self._notify()
        return finished

    async def _store(self, claim: Claim, outcome: Outcome) -> bool:
        """Nobody else can claim it meanwhile, so a database that is away for a while costs no second run."""
        end = time.monotonic() + _DATABASE_PATIENCE_SECONDS
        pause = 0.25
        while True:
            try:
                return await self._queue.finish(claim, outcome)
            except DatabaseUnavailable:  # the log tells of it once
                if time.monotonic() + pause > end:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, 5.0)

    async def _remove_output(self, claim: Claim) -> None:
        """What an earlier attempt wrote before it died. Only an object whose name the caller has chosen can have been
        there before, and is left if it is older than the first attempt."""
        location = claim.invocation.output_location
        if claim.attempt == 1 or location is None:
            return
        objects = self._objects_of(claim.invocation)
        if location.endswith(f"/{claim.invocation.invocation_id}.out"):
            await self._remove(claim, lambda: objects.delete(location))
            return
        first = claim.first_claimed_time.replace(microsecond=0)  # S3 tells whole seconds

        async def remove() -> None:
            written = await objects.last_modified(location)
            if written is not None and written >= first:
                await objects.delete(location)

        await self._remove(claim, remove)

    async def _remove_failure(self, claim: Claim) -> None:
        location = claim.invocation.failure_location
        if claim.attempt > 1 and location is not None:
            objects = self._objects_of(claim.invocation)
            await self._remove(claim, lambda: objects.delete(location))

    async def _remove(self, claim: Claim, work: Callable[[], Awaitable[None]]) -> None:
        trouble = await self._patiently(work)
        if trouble is not None:
            id = claim.invocation.invocation_id
            logger.warning("async invocation %s: what an earlier attempt has written stays: %s", id, trouble)

    def _objects_of(self, invocation: AsyncInvocation) -> ObjectStore:
        """The S3 as the execution role of the invocation may use it."""
        source = arn(
            "endpoint",
            region=self._rules.region,
            account_id=invocation.account_id,
            name=invocation.endpoint_name,
        )
        return self._objects.acting_as(
            invocation.account_id,
            invocation.role_arn,
            source_arn=source,
            role_exists=invocation.role_exists,
        )

    async def _patiently(self, work: Callable[[], Awaitable[None]]) -> str | None:
        """Do it, again and again while the S3 does not answer; what was wrong if it could not be done."""
        end = time.monotonic() + self._rules.patience_seconds
        pause = 1.0
        while True:
            try:
                await work()
            except ObjectStoreUnavailable as error:
                if time.monotonic() + pause > end:
                    return str(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            except (ObjectError, FileNotFoundError) as error:
                return str(error)
            else:
                return None


def _head(invocation: AsyncInvocation, source: ObjectReader | None, instance: Instance) -> bytes:
    members = {
        b"content-type": invocation.content_type or (source.content_type if source else None),
        b"accept": invocation.accept,
        b"x-amzn-sagemaker-custom-attributes": invocation.custom_attributes,
        b"x-amzn-sagemaker-inference-id": invocation.inference_id,
    }
    return wire.render_container_request(
        wire.Invocation(
            wire.ASYNC,
            invocation.endpoint_name,
            {name: value.encode() for name, value in members.items() if value is not None},
        ),
        path=b"/invocations",
        host=instance.address,
        length=source.size if source else len(invocation.body or b""),
    )


async def _body(invocation: AsyncInvocation, source: ObjectReader | None) -> AsyncIterator[bytes]:
    if source is None:
        yield invocation.body or b""
        return
    sent = 0
    async for chunk in source.chunks():
        yield chunk
        sent += len(chunk)
    if sent != source.size:
        raise ObjectStoreUnavailable(f"{invocation.input_location} ended after {sent} of {source.size} bytes")


async def _read_some(call: ContainerCall) -> bytes:
    """The start of an error's body."""
    body = b""
    while len(body) < _ERROR_BODY and (chunk := await call.read()):
        body += chunk
    return body
