"""`/_moorage/async`: the queue of asynchronous invocations, for people to look at and to put right.

| request | parameters | reply |
|---|---|---|
| `GET /backlogs` | | `Backlogs`: one an endpoint |
| `GET /invocations` | `endpoint`, `status`, `limit`, `before` | `Invocations`, newest first; `Before` |
| `GET /invocation` | `id` | `Invocations` with this invocation id or inference id |
| `POST /retry` | `id` | `Retried` |
| `POST /retry` | `endpoint`, `before` | `Retried` of its failed ones; `Before` |
| `POST /cancel` | `id` | `InvocationId` |
| `POST /purge` | `older_than_seconds`, `endpoint` | `Forgotten`; `More`: whether to ask again for the rest |

All parameters are in the query. `Before` in a reply says that there is more: ask again with it as `before`.
A refusal is 4xx or 503 with a `message`. Private to the command line tools.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from moorage.async_inference.base import FINAL, Backlog, Claim, Queue, Record, Status
from moorage.async_inference.purge import purge

_RETRY_TIME_TO_LIVE = timedelta(hours=6)
_CANCEL_TIMEOUT_SECONDS = 20.0
_PURGE_SECONDS = 2.0
_MOST_LISTED = 1000
_MOST_RETRIED = 200
_LONGEST_AGE_SECONDS = 100 * 365 * 86400

Fail = Callable[[Claim, str], Awaitable[bool]]
Wake = Callable[[str, str], None]


def async_routes(queue: Queue, *, fail: Fail, wake: Wake) -> list[Route]:
    """`fail` ends a claimed invocation as failed, with all that belongs to it; False if the claim was lost.
    `wake` tells who runs an endpoint's invocations that there is one more."""
    routes = _AsyncRoutes(queue, fail, wake)
    return [
        _route("GET", "backlogs", routes.backlogs),
        _route("GET", "invocations", routes.invocations),
        _route("GET", "invocation", routes.invocation),
        _route("POST", "retry", routes.retry),
        _route("POST", "cancel", routes.cancel),
        _route("POST", "purge", routes.purge),
    ]


class _Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _AsyncRoutes:
    def __init__(self, queue: Queue, fail: Fail, wake: Wake) -> None:
        self._queue = queue
        self._fail = fail
        self._wake = wake

    async def backlogs(self, request: Request) -> dict[str, Any]:
        now = datetime.now(UTC)
        found = await self._queue.backlogs(_account(request))
        return {"Backlogs": [_backlog_document(backlog, now) for backlog in found]}

    async def invocations(self, request: Request) -> dict[str, Any]:
        most = _number(request, "limit", default=100, least=1, most=_MOST_LISTED)
        page = await self._queue.records(
            _account(request),
            endpoint_name=request.query_params.get("endpoint"),
            status=_status(request),
            before=_before(request),
            most=most,
        )
        return {"Invocations": [_document(record) for _, record in page]} | _continuation(page, most)

    async def invocation(self, request: Request) -> dict[str, Any]:
        return {"Invocations": [_document(record) for record in await self._find(request)]}

    async def retry(self, request: Request) -> dict[str, Any]:
        endpoint = request.query_params.get("endpoint")
        if endpoint is not None:
            return await self._retry_failed(request, endpoint)
        record = await self._find_one(request)
        if not await self._requeue(record):
            status = (await self._find_one(request)).status
            raise _Refusal(
                409, f"{_subject(record)} is {status}: only what has failed or expired can be retried."
            )
        return {"Retried": 1}

    async def _retry_failed(self, request: Request, endpoint: str) -> dict[str, Any]:
        """A page at a time, so that no request takes long; what fails again at once is not met again."""
        page = await self._queue.records(
            _account(request),
            endpoint_name=endpoint,
            status=Status.FAILED,
            before=_before(request),
            most=_MOST_RETRIED,
        )
        retried = sum([await self._requeue(record) for _, record in page])
        return {"Retried": retried} | _continuation(page, _MOST_RETRIED)

    async def _requeue(self, record: Record) -> bool:
        invocation = record.invocation
        expires_time = datetime.now(UTC) + _RETRY_TIME_TO_LIVE
        done = await self._queue.requeue(
            invocation.account_id, invocation.invocation_id, expires_time=expires_time
        )
        if done:
            self._wake(invocation.account_id, invocation.endpoint_name)
        return done

    async def cancel(self, request: Request) -> dict[str, Any]:
        record = await self._find_one(request)
        invocation = record.invocation
        claim = await self._queue.take(invocation.account_id, invocation.invocation_id)
        if claim is None:
            raise _Refusal(409, await self._why_not_cancelled(record))
        canceller = request.headers.get("x-moorage-principal-arn", invocation.account_id)
        try:
            async with asyncio.timeout(_CANCEL_TIMEOUT_SECONDS):
                cancelled = await self._fail(claim, f"Cancelled by {canceller}.")
        except TimeoutError:
            # The attempt counts: the next one removes a failure object that may be there by now.
            await self._queue.release(claim)
            self._wake(invocation.account_id, invocation.endpoint_name)
            raise _Refusal(
                503, f"{_subject(record)} is still queued: its failure object could not be written in time."
            ) from None
        finally:
            self._queue.abandon(claim)
        if not cancelled:
            raise _Refusal(503, f"{_subject(record)} could not be cancelled at the moment. Please try again.")
        return {"InvocationId": invocation.invocation_id}

    async def _why_not_cancelled(self, record: Record) -> str:
        invocation = record.invocation
        found = await self._queue.find(invocation.account_id, invocation.invocation_id)
        ended = next((each.status for each in found if each.status in FINAL), None)
        if ended is not None:
            return f"{_subject(record)} has ended already: it is {ended}."
        return (
            f"{_subject(record)} is running, and what is running cannot be cancelled. "
            f"Its container has {invocation.timeout_seconds} s for it."
        )

    async def purge(self, request: Request) -> dict[str, Any]:
        if "older_than_seconds" not in request.query_params:
            raise _Refusal(400, "older_than_seconds is missing.")
        age = _number(request, "older_than_seconds", default=0, least=0, most=_LONGEST_AGE_SECONDS)
        forgotten, complete = await purge(
            self._queue,
            finished_before=datetime.now(UTC) - timedelta(seconds=age),
            account_id=_account(request),
            endpoint_name=request.query_params.get("endpoint"),
            within_seconds=_PURGE_SECONDS,
        )
        return {"Forgotten": forgotten, "More": not complete}

    async def _find(self, request: Request) -> Sequence[Record]:
        id = request.query_params.get("id")
        if not id:
            raise _Refusal(400, "id is missing.")
        found = await self._queue.find(_account(request), id)
        if not found:
            raise _Refusal(
                404, f"There is no asynchronous invocation {id}. Finished ones are kept for a while only."
            )
        return found

    async def _find_one(self, request: Request) -> Record:
        found = await self._find(request)
        id = request.query_params["id"]
        exact = [record for record in found if record.invocation.invocation_id == id] or found
        if len(exact) > 1:
            raise _Refusal(
                409, f"{len(exact)} invocations have the inference id {id}. Name one by its invocation id."
            )
        return exact[0]


def _route(method: str, name: str, handler: Callable[[Request], Awaitable[dict[str, Any]]]) -> Route:
    async def answer(request: Request) -> Response:
        try:
            return JSONResponse(await handler(request))
        except _Refusal as refusal:
            return JSONResponse({"message": str(refusal)}, refusal.status)

    return Route(f"/_moorage/async/{name}", answer, methods=[method])


def _account(request: Request) -> str:
    return request.headers["x-moorage-account-id"]


def _status(request: Request) -> Status | None:
    name = request.query_params.get("status")
    try:
        return None if name is None else Status(name)
    except ValueError:
        raise _Refusal(400, f"status must be one of {', '.join(Status)}, not {name!r}.") from None


def _before(request: Request) -> int | None:
    if "before" not in request.query_params:
        return None
    return _number(request, "before", default=0, least=0, most=2**63 - 1)


def _number(request: Request, name: str, *, default: int, least: int, most: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise _Refusal(400, f"{name} must be a whole number from {least} to {most}, not {text!r}.")
    return int(text)


def _continuation(page: Sequence[tuple[int, Record]], most: int) -> dict[str, Any]:
    return {"Before": page[-1][0]} if len(page) == most else {}


def _subject(record: Record) -> str:
    return f"Invocation {record.invocation.invocation_id}"


def _backlog_document(backlog: Backlog, now: datetime) -> dict[str, Any]:
    oldest = backlog.oldest_received_time
    return {
        "EndpointName": backlog.endpoint_name,
        "Counts": {status.value: backlog.counts.get(status, 0) for status in Status},
        "OldestSeconds": None if oldest is None else round(max(0.0, (now - oldest).total_seconds()), 3),
        "ReceivedLastMinute": backlog.received_last_minute,
        "FinishedLastMinute": backlog.finished_last_minute,
    }


def _document(record: Record) -> dict[str, Any]:
    """Everything but the body; what is not set is left out."""
    invocation = record.invocation
    members = {
        "InvocationId": invocation.invocation_id,
        "InferenceId": invocation.inference_id,
        "EndpointName": invocation.endpoint_name,
        "Status": record.status.value,
        "Reason": record.reason,
        "ReceivedTime": _iso(invocation.received_time),
        "ExpiresTime": _iso(invocation.expires_time),
        "FirstClaimedTime": _iso(record.first_claimed_time),
        "FinishedTime": _iso(record.finished_time),
        "Attempts": record.attempts,
        "ContainerDeaths": record.deaths,
        "InvocationTimeoutSeconds": invocation.timeout_seconds,
        "ContentType": invocation.content_type,
        "Accept": invocation.accept,
        "CustomAttributes": invocation.custom_attributes,
        "InputLocation": invocation.input_location,
        "OutputLocation": invocation.output_location,
        "FailureLocation": invocation.failure_location,
        "SuccessTopic": invocation.success_topic,
        "ErrorTopic": invocation.error_topic,
        "IncludeInferenceResponseIn": list(invocation.include_response_in) or None,
    }
    return {name: value for name, value in members.items() if value is not None}


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
