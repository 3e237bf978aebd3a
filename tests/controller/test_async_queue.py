"""The private routes of the queue of asynchronous invocations, over a queue in SQLite."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.applications import Starlette

from moorage.async_inference.base import AsyncInvocation, Claim, Outcome, Status
from moorage.async_inference.sql import SqlQueue
from moorage.controller import async_queue
from moorage.controller.async_queue import async_routes
from moorage.storage.database import open_database

ACCOUNT, OTHER_ACCOUNT = "111122223333", "444455556666"
ANN = f"arn:aws:iam::{ACCOUNT}:user/ann"


@dataclass
class Server:
    """The routes, what stands behind them, and what they were told."""

    queue: SqlQueue
    woken: list[tuple[str, str]] = field(default_factory=list)
    failing_takes_seconds: float = 0.0

    async def fail(self, claim: Claim, reason: str) -> bool:
        await asyncio.sleep(self.failing_takes_seconds)
        return await self.queue.finish(claim, outcome(Status.FAILED, reason))

    async def ask(
        self, method: str, name: str, *, account: str = ACCOUNT, **query: object
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON of the reply to a request, as the gateway would relay it."""
        routes = async_routes(self.queue, fail=self.fail, wake=lambda *key: self.woken.append(key))
        scope = {
            "type": "http",
            "method": method,
            "path": f"/_moorage/async/{name}",
            "query_string": urlencode(query).encode(),
            "headers": [
                (b"x-moorage-account-id", account.encode()),
                (b"x-moorage-principal-arn", ANN.encode()),
            ],
        }
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b""}

        async def send(message: Any) -> None:
            sent.append(message)

        await Starlette(routes=routes)(scope, receive, send)
        return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:]))

    async def get(self, name: str, **query: object) -> dict[str, Any]:
        status, document = await self.ask("GET", name, **query)
        assert status == 200, document
        return document

    async def post(self, name: str, **query: object) -> dict[str, Any]:
        status, document = await self.ask("POST", name, **query)
        assert status == 200, document
        return document

    async def put(self, **members: Any) -> str:
        """Accept an invocation; returns its id."""
        now = datetime.now(UTC)
        given = {
            "invocation_id": str(uuid.uuid4()),
            "account_id": ACCOUNT,
            "endpoint_name": "demo",
            "inference_id": "mine",
            "received_time": now,
            "expires_time": now + timedelta(hours=1),
            "timeout_seconds": 900,
            "body": b"secret",
        } | members
        await self.queue.put(AsyncInvocation(**given))
        return str(given["invocation_id"])

    async def claim(self, endpoint: str = "demo") -> Claim:
        (claim,) = await self.queue.claim(ACCOUNT, endpoint, most=1)
        return claim

    async def put_finished(self, status: Status, reason: str | None = None, **members: Any) -> str:
        id = await self.put(**members)
        claim = await self.claim(members.get("endpoint_name", "demo"))
        assert claim.invocation.invocation_id == id
        assert await self.queue.finish(claim, outcome(status, reason))
        return id

    async def status(self, id: str) -> str:
        (found,) = (await self.get("invocation", id=id))["Invocations"]
        return str(found["Status"])


def outcome(status: Status, reason: str | None) -> Outcome:
    return Outcome(status=status, finished_time=datetime.now(UTC), reason=reason)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    database = await open_database(f"sqlite+aiosqlite:///{tmp_path / 'moorage.db'}")
    yield Server(SqlQueue(database))
    await database.close()


async def test_backlogs(server: Server) -> None:
    assert await server.get("backlogs") == {"Backlogs": []}
    await server.put_finished(Status.FAILED, "as you wish")
    await server.put(received_time=datetime.now(UTC) - timedelta(seconds=90))
    await server.put()
    await server.claim()
    await server.put(endpoint_name="another")
    await server.put(account_id=OTHER_ACCOUNT)
    another, demo = (await server.get("backlogs"))["Backlogs"]
    assert another["EndpointName"] == "another"
    assert demo["EndpointName"] == "demo"
    assert demo["Counts"] == {"Queued": 1, "Running": 1, "Completed": 0, "Failed": 1, "Expired": 0}
    assert 90 <= demo["OldestSeconds"] < 120
    assert (demo["ReceivedLastMinute"], demo["FinishedLastMinute"]) == (2, 1)


async def test_nothing_unfinished_has_no_age(server: Server) -> None:
    await server.put_finished(Status.COMPLETED)
    (backlog,) = (await server.get("backlogs"))["Backlogs"]
    assert backlog["OldestSeconds"] is None


async def test_lists_are_pages_of_the_newest_first(server: Server) -> None:
    ids = [await server.put() for _ in range(5)]
    await server.put(account_id=OTHER_ACCOUNT)
    seen, before = [], None
    for _ in range(3):
        page = await server.get("invocations", limit=2, **({} if before is None else {"before": before}))
        seen += [each["InvocationId"] for each in page["Invocations"]]
        before = page.get("Before")
    assert seen == ids[::-1]
    assert before is None


async def test_lists_are_filtered(server: Server) -> None:
    failed = await server.put_finished(Status.FAILED)
    queued = await server.put()
    elsewhere = await server.put(endpoint_name="another")

    async def listed(**filters: str) -> list[str]:
        return [each["InvocationId"] for each in (await server.get("invocations", **filters))["Invocations"]]

    assert await listed() == [elsewhere, queued, failed]
    assert await listed(endpoint="demo") == [queued, failed]
    assert await listed(endpoint="demo", status="Failed") == [failed]
    assert await listed(status="Queued") == [elsewhere, queued]
    assert await listed(status="Expired") == []


async def test_one_is_shown_with_all_but_its_body(server: Server) -> None:
    id = await server.put(
        content_type="text/csv",
        accept="application/json",
        custom_attributes="a=b",
        output_location="s3://bucket/out",
        failure_location="s3://bucket/failure",
        success_topic="arn:aws:sns:us-east-1:111122223333:good",
        include_response_in=("SUCCESS_NOTIFICATION_TOPIC",),
    )
    claim = await server.claim()
    await server.queue.finish(claim, outcome(Status.FAILED, "as you wish"))
    (shown,) = (await server.get("invocation", id=id))["Invocations"]
    times = [
        datetime.fromisoformat(shown.pop(name))
        for name in ("ReceivedTime", "FirstClaimedTime", "FinishedTime", "ExpiresTime")
    ]
    assert times == sorted(times)
    assert all(time.utcoffset() == timedelta(0) for time in times)
    assert shown == {
        "InvocationId": id,
        "InferenceId": "mine",
        "EndpointName": "demo",
        "Status": "Failed",
        "Reason": "as you wish",
        "Attempts": 1,
        "ContainerDeaths": 0,
        "InvocationTimeoutSeconds": 900,
        "ContentType": "text/csv",
        "Accept": "application/json",
        "CustomAttributes": "a=b",
        "OutputLocation": "s3://bucket/out",
        "FailureLocation": "s3://bucket/failure",
        "SuccessTopic": "arn:aws:sns:us-east-1:111122223333:good",
        "IncludeInferenceResponseIn": ["SUCCESS_NOTIFICATION_TOPIC"],
    }


async def test_an_inference_id_may_be_that_of_several(server: Server) -> None:
    first, second = await server.put(inference_id="a/b ü"), await server.put(inference_id="a/b ü")
    shown = (await server.get("invocation", id="a/b ü"))["Invocations"]
    assert [each["InvocationId"] for each in shown] == [second, first]
    for operation in ("retry", "cancel"):
        status, refusal = await server.ask("POST", operation, id="a/b ü")
        assert status == 409
        assert refusal["message"].startswith("2 invocations have the inference id a/b ü.")


async def test_an_invocation_id_is_meant_before_an_inference_id(server: Server) -> None:
    id = await server.put()
    await server.put(inference_id=id)
    assert await server.post("cancel", id=id) == {"InvocationId": id}


@pytest.mark.parametrize(("method", "name"), [("GET", "invocation"), ("POST", "retry"), ("POST", "cancel")])
async def test_what_is_not_there_or_of_another_account(server: Server, method: str, name: str) -> None:
    id = await server.put(account_id=OTHER_ACCOUNT)
    for wanted in (id, "nothing"):
        status, refusal = await server.ask(method, name, id=wanted)
        assert status == 404
        assert f"There is no asynchronous invocation {wanted}." in refusal["message"]
    status, refusal = await server.ask(method, name)
    assert (status, refusal) == (400, {"message": "id is missing."})


@pytest.mark.parametrize(
    ("method", "name", "query", "message"),
    [
        ("GET", "invocations", {"limit": "0"}, "limit must be a whole number from 1 to 1000, not '0'."),
        ("GET", "invocations", {"limit": "²"}, "limit must be a whole number from 1 to 1000, not '²'."),
        ("GET", "invocations", {"before": "9" * 30}, "before must be a whole number"),
        ("GET", "invocations", {"status": "queued"}, "status must be one of Queued, Running, Completed,"),
        ("POST", "purge", {}, "older_than_seconds is missing."),
        ("POST", "purge", {"older_than_seconds": "-1"}, "older_than_seconds must be a whole number"),
    ],
)
async def test_parameters_that_are_wrong(
    server: Server, method: str, name: str, query: dict[str, str], message: str
) -> None:
    status, refusal = await server.ask(method, name, **query)
    assert status == 400
    assert refusal["message"].startswith(message)


@pytest.mark.parametrize("status", [Status.FAILED, Status.EXPIRED])
async def test_retry(server: Server, status: Status) -> None:
    id = await server.put_finished(status, "as you wish", expires_time=datetime.now(UTC))
    assert await server.post("retry", id="mine") == {"Retried": 1}
    assert server.woken == [(ACCOUNT, "demo")]
    (shown,) = (await server.get("invocation", id=id))["Invocations"]
    assert shown["Status"] == "Queued"
    assert "Reason" not in shown
    left = datetime.fromisoformat(shown["ExpiresTime"]) - datetime.now(UTC)
    assert timedelta(hours=5, minutes=59) < left <= timedelta(hours=6)
    assert (await server.claim()).invocation.body == b"secret"


async def test_what_has_not_failed_is_not_retried(server: Server) -> None:
    queued = await server.put()
    status, refusal = await server.ask("POST", "retry", id=queued)
    assert status == 409
    assert f"Invocation {queued} is Queued: only what has failed" in refusal["message"]
    claim = await server.claim()
    assert (await server.ask("POST", "retry", id=queued))[0] == 409
    await server.queue.finish(claim, outcome(Status.COMPLETED, None))
    assert (await server.ask("POST", "retry", id=queued))[0] == 409
    assert server.woken == []


async def test_retry_of_all_that_failed_goes_page_by_page(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_queue, "_MOST_RETRIED", 2)
    failed = [await server.put_finished(Status.FAILED) for _ in range(3)]
    untouched = [
        await server.put_finished(Status.EXPIRED),
        await server.put_finished(Status.COMPLETED),
        await server.put_finished(Status.FAILED, endpoint_name="another"),
    ]
    page = await server.post("retry", endpoint="demo")
    assert page["Retried"] == 2
    assert await server.post("retry", endpoint="demo", before=page["Before"]) == {"Retried": 1}
    assert [await server.status(id) for id in failed] == ["Queued"] * 3
    assert [await server.status(id) for id in untouched] == ["Expired", "Completed", "Failed"]
    assert set(server.woken) == {(ACCOUNT, "demo")}


async def test_cancel_ends_what_is_queued_as_failed(server: Server) -> None:
    id = await server.put()
    assert await server.post("cancel", id="mine") == {"InvocationId": id}
    (shown,) = (await server.get("invocation", id=id))["Invocations"]
    assert (shown["Status"], shown["Reason"]) == ("Failed", f"Cancelled by {ANN}.")
    status, refusal = await server.ask("POST", "cancel", id=id)
    assert (status, refusal) == (
        409,
        {"message": f"Invocation {id} has ended already: it is Failed."},
    )


async def test_what_is_running_cannot_be_cancelled(server: Server) -> None:
    id = await server.put()
    claim = await server.claim()
    status, refusal = await server.ask("POST", "cancel", id=id)
    assert status == 409
    assert refusal["message"] == (
        f"Invocation {id} is running, and what is running cannot be cancelled. Its container has 900 s for it."
    )
    assert await server.queue.finish(claim, outcome(Status.COMPLETED, None))


async def test_a_cancellation_that_takes_too_long_leaves_it_queued(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_queue, "_CANCEL_TIMEOUT_SECONDS", 0.01)
    server.failing_takes_seconds = 60
    id = await server.put()
    status, refusal = await server.ask("POST", "cancel", id=id)
    assert (status, refusal["message"].split(":")[0]) == (503, f"Invocation {id} is still queued")
    assert await server.status(id) == "Queued"


async def test_purge_forgets_what_ended_long_ago(server: Server) -> None:
    finished = await server.put_finished(Status.COMPLETED)
    elsewhere = await server.put_finished(Status.FAILED, endpoint_name="another")
    old = datetime.now(UTC) - timedelta(days=9)
    queued = await server.put(received_time=old)
    running = await server.put(received_time=old)
    await server.claim()
    assert await server.post("purge", older_than_seconds=3600) == {"Forgotten": 0, "More": False}
    assert await server.post("purge", older_than_seconds=0, endpoint="demo") == {
        "Forgotten": 1,
        "More": False,
    }
    assert (await server.ask("GET", "invocation", id=finished))[0] == 404
    status, reply = await server.ask("POST", "purge", account=OTHER_ACCOUNT, older_than_seconds=0)
    assert (status, reply) == (200, {"Forgotten": 0, "More": False})
    assert await server.post("purge", older_than_seconds=0) == {"Forgotten": 1, "More": False}
    assert (await server.ask("GET", "invocation", id=elsewhere))[0] == 404
    assert {await server.status(queued), await server.status(running)} == {"Queued", "Running"}
