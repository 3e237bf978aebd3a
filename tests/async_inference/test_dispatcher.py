"""From the queue through a container to exactly one result: a real queue, a real S3, containers that do as told."""

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from moorage.async_inference.attempt import Attempts, Rules
from moorage.async_inference.base import AsyncInvocation, Record, Status
from moorage.async_inference.dispatcher import Dispatcher
from moorage.async_inference.sql import SqlQueue
from moorage.clock import SteadyClock
from moorage.routing.table import RoutingTable, route_document
from moorage.storage.database import open_database
from moorage.storage.failures import DatabaseUnavailable
from moorage.storage.objects import Authority
from tests.async_inference.s3 import AnyRole, LocalS3
from tests.gateway.harness import Container, ContainerConnection
from tests.modelhost.hosts import Starter, wait_until

ACCOUNT, ENDPOINT = "000000000000", "demo"
KEY = (ACCOUNT, ENDPOINT)
Script = Callable[[ContainerConnection], Awaitable[None]]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    running = LocalS3(tmp_path_factory.mktemp("s3"), "inbox", "out").start()
    yield running
    running.stop()


class World:
    """A dispatcher at work. `rules` of patience and deaths are short."""

    def __init__(
        self,
        queue: SqlQueue,
        s3: LocalS3,
        *,
        clock: SteadyClock | None = None,
        authority: Authority | None = None,
        **rules: Any,
    ) -> None:
        self.queue = queue
        self.s3 = s3
        self.table = RoutingTable(
            on_drained=lambda _: None, on_changed=lambda *key: self.dispatcher.route_changed(*key)
        )
        defaults: dict[str, Any] = {
            "region": "us-east-1",
            "patience_seconds": 0.0,
            "most_deaths": 3,
            "content_length_required": False,
            "connect_timeout_seconds": 5.0,
        }
        self.attempts = Attempts(
            queue=queue,
            objects=s3.objects(authority),
            rules=Rules(**{**defaults, **rules}),
            notify=lambda: None,
            clock=clock,
        )
        self.dispatcher = Dispatcher(queue=queue, attempts=self.attempts, table=self.table, keep_seconds=3600)
        self.generation = 0
        self.servers: list[asyncio.Server] = []

    async def serve(self, script: Script, *, limit: int = 4, instances: int = 1) -> Container:
        """A container of the endpoint's; `instances` of the route all lead to it."""
        container = Container(script)
        server = await asyncio.start_server(container.serve, "127.0.0.1", 0)
        self.servers.append(server)
        container.port = server.sockets[0].getsockname()[1]
        self.route(container.port, limit=limit, instances=instances)
        return container

    def route(self, port: int, *, limit: int = 4, instances: int = 1) -> None:
        self.generation += 1
        self.table.put(
            route_document(
                account_id=ACCOUNT,
                name=ENDPOINT,
                region="us-east-1",
                variants=[
                    {
                        "name": "AllTraffic",
                        "weight": 1.0,
                        "container_hostname": "primary",
                        "instances": [
                            {
                                "instance_id": f"i-{self.generation}-{number}",
                                "host": "127.0.0.1",
                                "port": port,
                                "generation": 1,
                            }
                            for number in range(instances)
                        ],
                    }
                ],
                asynchronous=True,
                max_concurrency=limit,
            )
        )

    async def put(self, **members: Any) -> AsyncInvocation:
        id = str(uuid.uuid4())
        now = datetime.now(UTC)
        defaults: dict[str, Any] = {
            "invocation_id": id,
            "account_id": ACCOUNT,
            "endpoint_name": ENDPOINT,
            "inference_id": "inference",
            "received_time": now,
            "expires_time": now + timedelta(hours=6),
            "timeout_seconds": 60,
            "output_location": f"s3://out/{id}.out",
            "failure_location": f"s3://out/{id}-error.out",
        }
        if "input_location" not in members:
            defaults["body"] = b"hello"
        invocation = AsyncInvocation(**{**defaults, **members})
        await self.queue.put(invocation)
        self.dispatcher.wake(*KEY)
        return invocation

    async def finished(self, invocation: AsyncInvocation) -> Record:
        async with asyncio.timeout(30):
            while True:
                [record] = await self.queue.find(ACCOUNT, invocation.invocation_id)
                if record.finished_time is not None:
                    return record
                await asyncio.sleep(0.01)

    def output(self, invocation: AsyncInvocation) -> bytes | None:
        assert invocation.output_location is not None
        return self.s3.read(invocation.output_location)

    def failure(self, invocation: AsyncInvocation) -> str | None:
        assert invocation.failure_location is not None
        found = self.s3.read(invocation.failure_location)
        return None if found is None else found.decode()

    async def fails(self, **members: Any) -> str:
        """Put one, see it fail with a failure object and no output; the reason."""
        invocation = await self.put(**members)
        record = await self.finished(invocation)
        assert record.status is Status.FAILED
        assert record.reason is not None
        assert self.failure(invocation) == record.reason
        assert (
            invocation.output_location is None
            or not invocation.output_location.startswith("s3://out/")
            or (self.output(invocation) is None)
        )
        return record.reason


@asynccontextmanager
async def world(
    tmp_path: Path, s3: LocalS3, *, clock: SteadyClock | None = None, **rules: Any
) -> AsyncIterator[World]:
    database = await open_database(f"sqlite+aiosqlite:///{tmp_path / 'moorage.db'}")
    made = World(SqlQueue(database, clock=clock), s3, clock=clock, **rules)
    running = asyncio.create_task(made.dispatcher.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        for server in made.servers:
            server.close()
        await database.close()


async def echo(connection: ContainerConnection) -> None:
    request = await connection.request()
    await connection.reply(request.body, headers={"Content-Type": "text/echo"})


async def test_an_inline_body_becomes_an_output_object(tmp_path: Path, s3: LocalS3) -> None:
    seen = []

    async def script(connection: ContainerConnection) -> None:
        seen.append(await connection.request())
        await connection.reply(b"42", headers={"Content-Type": "text/csv; charset=utf-8"})

    async with world(tmp_path, s3) as here:
        await here.serve(script)
        invocation = await here.put(
            content_type="text/plain", accept="text/csv, */*", custom_attributes="trace=1", body=b"the body"
        )
        record = await here.finished(invocation)
        assert (record.status, record.attempts, record.reason) == (Status.COMPLETED, 1, None)
        assert here.output(invocation) == b"42"
        assert here.failure(invocation) is None
        assert invocation.output_location is not None
        opened = await s3.store().open(invocation.output_location)
        assert opened.content_type == "text/csv; charset=utf-8"
    [request] = seen
    assert request.body == b"the body"
    assert request.headers["content-type"] == "text/plain"
    assert request.headers["accept"] == "text/csv, */*"
    assert request.headers["x-amzn-sagemaker-custom-attributes"] == "trace=1"
    assert request.headers["x-amzn-sagemaker-inference-id"] == "inference"
    assert request.headers["x-amzn-sagemaker-forwarded-api"] == "InvokeEndpointAsync"


async def test_an_input_object_reaches_the_container_whole(tmp_path: Path, s3: LocalS3) -> None:
    data = bytes(range(256)) * 40_000  # about 10 MB: many pieces each way
    await s3.store().put("s3://inbox/folder/data.bin", data, content_type="text/plain")
    async with world(tmp_path, s3) as here:
        await here.serve(echo)
        invocation = await here.put(input_location="s3://inbox/folder/data.bin")
        assert (await here.finished(invocation)).status is Status.COMPLETED
        assert here.output(invocation) == data


async def test_the_type_of_an_input_object_is_told_unless_the_caller_gave_one(
    tmp_path: Path, s3: LocalS3
) -> None:
    await s3.store().put("s3://inbox/typed", b"1,2", content_type="text/csv")

    async def script(connection: ContainerConnection) -> None:
        request = await connection.request()
        await connection.reply(request.headers["content-type"].encode())

    async with world(tmp_path, s3) as here:
        await here.serve(script)
        for given, told in ((None, b"text/csv"), ("text/plain", b"text/plain")):
            invocation = await here.put(input_location="s3://inbox/typed", content_type=given)
            await here.finished(invocation)
            assert here.output(invocation) == told


async def test_a_container_may_reply_while_it_reads(tmp_path: Path, s3: LocalS3) -> None:
    data = bytes(range(256)) * 80_000  # more than what any buffer on the way holds
    await s3.store().put("s3://inbox/streamed", data, content_type="text/plain")

    async def script(connection: ContainerConnection) -> None:
        await connection.reader.readuntil(b"\r\n\r\n")
        await connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data))
        left = len(data)
        while left:
            piece = await connection.reader.read(min(left, 65536))
            left -= len(piece)
            await connection.write(piece)

    async with world(tmp_path, s3) as here:
        await here.serve(script)
        invocation = await here.put(input_location="s3://inbox/streamed")
        assert (await here.finished(invocation)).status is Status.COMPLETED
        assert here.output(invocation) == data


async def test_a_container_that_has_heard_enough_need_not_read_on(tmp_path: Path, s3: LocalS3) -> None:
    await s3.store().put("s3://inbox/too-much", bytes(20_000_000), content_type="text/plain")

    async def script(connection: ContainerConnection) -> None:
        await connection.reader.readuntil(b"\r\n\r\n")
        await connection.reply(b"too large", status=413)
        await connection.closed_by_gateway()

    async with world(tmp_path, s3) as here:
        await here.serve(script)
        reason = await here.fails(input_location="s3://inbox/too-much")
    assert reason.startswith('Received client error (413) from primary with message "too large"')


async def test_an_empty_reply_is_an_empty_object(tmp_path: Path, s3: LocalS3) -> None:
    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.reply(b"")

    async with world(tmp_path, s3) as here:
        await here.serve(script)
        invocation = await here.put()
        assert (await here.finished(invocation)).status is Status.COMPLETED
        assert here.output(invocation) == b""


async def chunks(connection: ContainerConnection) -> None:
    await connection.request()
    await connection.write(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )


async def test_a_chunked_reply_is_taken(tmp_path: Path, s3: LocalS3) -> None:
    async with world(tmp_path, s3) as here:
        await here.serve(chunks)
        invocation = await here.put()
        assert (await here.finished(invocation)).status is Status.COMPLETED
        assert here.output(invocation) == b"abcde"


async def test_a_chunked_reply_is_refused_under_the_strict_setting(tmp_path: Path, s3: LocalS3) -> None:
    async with world(tmp_path, s3, content_length_required=True) as here:
        await here.serve(chunks)
        reason = await here.fails()
    assert reason == "The response from container primary did not specify the required Content-Length header"


async def test_an_error_of_the_model_fails_at_once(tmp_path: Path, s3: LocalS3) -> None:
    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.reply(b"no such column: age", status=500)

    async with world(tmp_path, s3) as here:
        container = await here.serve(script)
        reason = await here.fails()
    assert reason.startswith('Received server error (500) from primary with message "no such column: age"')
    assert container.connections == 1


async def test_a_model_that_takes_too_long_fails_and_is_cut_off(tmp_path: Path, s3: LocalS3) -> None:
    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.closed_by_gateway()

    async with world(tmp_path, s3) as here:
        container = await here.serve(script)
        reason = await here.fails(timeout_seconds=1)
        await container.ended.get()
    assert "timed out while waiting for a response from container primary" in reason


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("s3://inbox/missing", "there is no object s3://inbox/missing"),
        ("s3://nowhere/missing", "there is no"),
        ("s3://in", "names no object"),
        ("s3://inbox/folder/", "names no object"),
        ("https://example.com", "is not the URL of an S3 object"),
    ],
)
async def test_an_input_that_is_not_there_fails(
    tmp_path: Path, s3: LocalS3, location: str, said: str
) -> None:
    async with world(tmp_path, s3) as here:
        container = await here.serve(echo)
        assert said in await here.fails(input_location=location)
        assert await here.finished(await here.put())  # nothing is stuck behind it
    assert container.connections == 1


async def test_an_output_bucket_that_is_missing_fails(tmp_path: Path, s3: LocalS3) -> None:
    async with world(tmp_path, s3) as here:
        await here.serve(echo)
        reason = await here.fails(output_location="s3://nowhere/x.out")
        assert "there is no bucket nowhere" in reason


async def test_a_failure_that_cannot_be_written_is_still_told(tmp_path: Path, s3: LocalS3) -> None:
    async with world(tmp_path, s3) as here:
        await here.serve(echo)
        invocation = await here.put(
            input_location="s3://inbox/missing", failure_location="s3://nowhere/x-error.out"
        )
        record = await here.finished(invocation)
    assert record.status is Status.FAILED
    assert record.reason is not None
    assert "there is no object s3://inbox/missing" in record.reason
    assert "The failure object is missing: there is no bucket nowhere" in record.reason


async def test_what_waited_too_long_expires_without_a_call(tmp_path: Path, s3: LocalS3) -> None:
    async with world(tmp_path, s3) as here:
        now = datetime.now(UTC)
        invocation = await here.put(received_time=now, expires_time=now + timedelta(seconds=0.2))
        record = await here.finished(invocation)
        container = await here.serve(echo)
        other = await here.put()
        await here.finished(other)
    assert record.status is Status.EXPIRED
    assert (here.output(invocation), here.failure(invocation)) == (None, None)
    assert container.connections == 1


async def test_an_invocation_that_kills_its_container_is_tried_again(tmp_path: Path, s3: LocalS3) -> None:
    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        if connection.number == 1:
            connection.close()
        else:
            await connection.reply(b"survived")

    async with world(tmp_path, s3) as here:
        await here.serve(script)
        invocation = await here.put()
        record = await here.finished(invocation)
        assert (record.status, record.attempts, record.deaths) == (Status.COMPLETED, 2, 1)
        assert here.output(invocation) == b"survived"


async def test_what_may_not_be_removed_stays(
    tmp_path: Path, s3: LocalS3, caplog: pytest.LogCaptureFixture
) -> None:
    """Of an attempt that wrote its result and died; the role that the objects are written as may not delete any."""
    attempts = iter((True, False))

    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        if next(attempts):
            connection.reset()
        else:
            await connection.reply(b"no", status=500)

    async with world(tmp_path, s3, authority=AnyRole("s3:DeleteObject")) as here:
        await here.serve(script)
        id = str(uuid.uuid4())
        s3.write(f"s3://out/{id}.out", b"of an attempt that died")
        invocation = await here.put(invocation_id=id, output_location=f"s3://out/{id}.out")
        record = await here.finished(invocation)
        assert (record.status, record.attempts) == (Status.FAILED, 2)
        assert here.failure(invocation) == record.reason
        assert here.output(invocation) == b"of an attempt that died"
    assert "what an earlier attempt has written stays: s3:DeleteObject on" in caplog.text


async def test_an_invocation_that_kills_every_container_fails(tmp_path: Path, s3: LocalS3) -> None:
    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        connection.reset()

    async with world(tmp_path, s3, most_deaths=2) as here:
        container = await here.serve(script)
        reason = await here.fails()
    assert "so did 2 containers in a row" in reason
    assert container.connections == 2


MODEL = """
    import time
    def model_fn(model_dir):
        return None
    def predict_fn(data, model):
        with (BASE / "runs").open("a") as runs:
            runs.write(f"{data}\\n")
        while not (BASE / "go").exists():
            time.sleep(0.01)
        if data == "fail":
            raise ValueError("this one fails")
        return data
    """


async def test_a_worker_killed_inside_an_invocation_is_like_a_dead_container(
    tmp_path: Path, s3: LocalS3
) -> None:
    """With the built-in model host, whose front answers for a dead worker; an error of user code stays final."""
    hosts = Starter(tmp_path)
    try:
        async with world(tmp_path, s3, most_deaths=3) as here:
            host = await asyncio.to_thread(hosts.ready, MODEL)
            runs = host.base / "runs"
            here.route(host.port)
            invocation = await here.put(content_type="application/json", body=b'"once"')
            for number in (1, 2):
                await asyncio.to_thread(
                    wait_until,
                    lambda number=number: runs.exists() and runs.read_text().count("once") == number,
                    "the model to run",
                )
                if number == 1:
                    os.kill(host.workers()[0], signal.SIGKILL)
            (host.base / "go").touch()
            record = await here.finished(invocation)
            assert (record.status, record.attempts, record.deaths) == (Status.COMPLETED, 2, 1)
            assert here.output(invocation) == b'"once"'
            assert "this one fails" in await here.fails(content_type="application/json", body=b'"fail"')
            assert runs.read_text().split() == ["once", "once", "fail"]
    finally:
        hosts.close()


async def test_a_container_may_say_that_its_process_ended(tmp_path: Path, s3: LocalS3) -> None:
    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.reply(b"gone", status=500, headers={"X-Moorage-Invocation": "interrupted"})

    async with world(tmp_path, s3, most_deaths=2) as here:
        container = await here.serve(script)
        reason = await here.fails()
    assert reason.startswith('Received server error (500) from primary with message "gone"')
    assert container.connections == 2


async def test_what_no_process_of_a_container_began_costs_no_attempt(tmp_path: Path, s3: LocalS3) -> None:
    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        if connection.number < 3:
            await connection.reply(b"no worker", status=503, headers={"X-Moorage-Invocation": "not-started"})
        else:
            await connection.reply(b"done")

    async with world(tmp_path, s3) as here:
        await here.serve(script)
        invocation = await here.put()
        record = await here.finished(invocation)
    assert (record.status, record.attempts, record.deaths) == (Status.COMPLETED, 1, 0)


async def test_a_reply_that_breaks_off_leaves_no_object(tmp_path: Path, s3: LocalS3) -> None:
    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")

    async with world(tmp_path, s3, most_deaths=1) as here:
        await here.serve(script)
        await here.fails()


async def test_attempts_are_counted_by_what_became_of_them(tmp_path: Path, s3: LocalS3) -> None:
    async def script(connection: ContainerConnection) -> None:
        request = await connection.request()
        if request.body == b"fail":
            await connection.reply(b"no", status=503)
        elif request.body == b"echo":
            await connection.reply(b"yes")

    async with world(tmp_path, s3, most_deaths=2) as here:
        await here.serve(script)
        for body in (b"echo", b"fail", b"die"):
            await here.finished(await here.put(body=body))
        async with asyncio.timeout(30):
            while here.attempts.finished.total() < 3:  # it is on disk a moment before it is counted
                await asyncio.sleep(0.01)
        route = here.table.find(*KEY)
        assert route is not None
        counts = route.variants[0].counts
        assert counts.invocations == 4, "one of them was tried twice"
        assert counts.model_latency.count == 2
        assert (counts.model_5xx, counts.model_errors) == (1, 3)
    assert here.attempts.finished == {(*KEY, Status.COMPLETED): 1, (*KEY, Status.FAILED): 2}


async def test_an_instance_that_takes_no_connection_costs_no_attempt(tmp_path: Path, s3: LocalS3) -> None:
    async with world(tmp_path, s3) as here:
        nobody = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        port = nobody.sockets[0].getsockname()[1]
        nobody.close()
        here.route(port)
        invocation = await here.put()
        await asyncio.sleep(0)
        await here.serve(echo)
        record = await here.finished(invocation)
    assert (record.status, record.attempts, record.deaths) == (Status.COMPLETED, 1, 0)


async def test_an_instance_is_never_given_more_than_its_limit(tmp_path: Path, s3: LocalS3) -> None:
    inside, most = 0, 0
    release = asyncio.Event()

    async def script(connection: ContainerConnection) -> None:
        nonlocal inside, most
        await connection.request()
        inside += 1
        most = max(most, inside)
        if inside == 4:
            release.set()
        await release.wait()
        inside -= 1
        await connection.reply(b"ok")

    async with world(tmp_path, s3) as here:
        await here.serve(script, limit=2, instances=2)
        invocations = [await here.put() for _ in range(12)]
        for invocation in invocations:
            assert (await here.finished(invocation)).status is Status.COMPLETED
    assert most == 4


async def test_the_backlog_waits_for_a_route(tmp_path: Path, s3: LocalS3) -> None:
    async with world(tmp_path, s3) as here:
        invocation = await here.put()
        await asyncio.sleep(0.05)
        [record] = await here.queue.find(ACCOUNT, invocation.invocation_id)
        assert record.status is Status.QUEUED
        await here.serve(echo)
        assert (await here.finished(invocation)).status is Status.COMPLETED


async def test_nothing_is_kept_of_an_endpoint_that_is_gone(tmp_path: Path, s3: LocalS3) -> None:
    async with world(tmp_path, s3) as here:
        await here.serve(echo)
        assert (await here.finished(await here.put())).status is Status.COMPLETED
        here.table.remove(*KEY)
        here.dispatcher.wake(*KEY)
        await here.dispatcher.fail_all(*KEY, "the endpoint was deleted")
        async with asyncio.timeout(10):
            while repr(here.dispatcher) != "<Dispatcher 0 endpoints, 0 invocations>":
                await asyncio.sleep(0)
        await here.serve(echo)
        assert (await here.finished(await here.put())).status is Status.COMPLETED


async def test_a_later_attempt_removes_what_an_earlier_one_left(tmp_path: Path, s3: LocalS3) -> None:
    """As after a death between writing the object and finishing."""

    async def refuse(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.reply(b"no", status=400)

    async with world(tmp_path, s3) as here:
        for script, status in ((echo, Status.COMPLETED), (refuse, Status.FAILED)):
            here.table.remove(*KEY)
            invocation = await here.put()
            [first] = await here.queue.claim(*KEY, most=1)
            assert first.attempt == 1
            here.queue.abandon(first)
            await here.queue.recover()
            assert invocation.output_location is not None
            assert invocation.failure_location is not None
            s3.write(invocation.output_location, b"of the first attempt")
            s3.write(invocation.failure_location, b"of the first attempt")
            await asyncio.sleep(1.1)  # the S3 looks at its folders once a second
            await here.serve(script)
            record = await here.finished(invocation)
            assert (record.status, record.attempts) == (status, 2)
            assert (here.output(invocation) is None) is (status is Status.FAILED)
            assert (here.failure(invocation) is None) is (status is Status.COMPLETED)


async def test_deleting_an_endpoint_fails_its_backlog(tmp_path: Path, s3: LocalS3) -> None:
    async with world(tmp_path, s3) as here:
        invocations = [await here.put() for _ in range(100)]
        await here.dispatcher.fail_all(*KEY, "Endpoint demo was deleted.")
        for invocation in invocations:
            assert (await here.finished(invocation)).reason == "Endpoint demo was deleted."
            assert here.failure(invocation) == "Endpoint demo was deleted."
        await here.serve(echo)
        assert (await here.finished(await here.put())).status is Status.COMPLETED


async def test_what_runs_at_shutdown_goes_back_into_the_queue(tmp_path: Path, s3: LocalS3) -> None:
    begun = asyncio.Event()

    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        begun.set()
        await connection.closed_by_gateway()

    async with world(tmp_path, s3) as here:
        await here.serve(script)
        invocation = await here.put()
        await begun.wait()
    async with world(tmp_path, s3) as here:
        await here.serve(echo)
        record = await here.finished(invocation)
        assert (record.status, record.attempts, record.deaths) == (Status.COMPLETED, 2, 0)


@pytest.mark.parametrize("step", [timedelta(seconds=60), timedelta(hours=-1)], ids=["forward", "back"])
async def test_a_clock_that_is_set_while_an_invocation_runs_changes_nothing(
    tmp_path: Path, s3: LocalS3, step: timedelta
) -> None:
    begun, release = asyncio.Event(), asyncio.Event()
    offset = timedelta()

    async def script(connection: ContainerConnection) -> None:
        request = await connection.request()
        if request.body == b"long":
            begun.set()
            await release.wait()
        await connection.reply(b"done")

    clock = SteadyClock(time_of_day=lambda: datetime.now(UTC) + offset)
    async with world(tmp_path, s3, clock=clock) as here:
        container = await here.serve(script)
        long = await here.put(body=b"long")
        await begun.wait()
        offset += step
        # Each of these makes the dispatcher claim what it can, `long` too if it could.
        for _ in range(3):
            assert (await here.finished(await here.put(body=b"short"))).status is Status.COMPLETED
        assert await here.queue.recover() == []
        release.set()
        record = await here.finished(long)
    assert (record.status, record.attempts, record.deaths) == (Status.COMPLETED, 1, 0)
    assert container.connections == 4


async def test_a_database_that_is_away_at_the_end_of_an_invocation_costs_no_second_run(
    tmp_path: Path, s3: LocalS3
) -> None:
    async with world(tmp_path, s3) as here:
        finish, tries = here.queue.finish, 0

        async def away(*arguments: Any) -> bool:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise DatabaseUnavailable("the database does not answer")
            return await finish(*arguments)

        here.queue.finish = away  # type: ignore[method-assign]
        container = await here.serve(echo)
        record = await here.finished(await here.put())
    assert (record.status, record.attempts) == (Status.COMPLETED, 1)
    assert container.connections == 1


async def test_a_fault_of_ours_does_not_repeat_for_ever(
    tmp_path: Path, s3: LocalS3, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(tmp_path, s3) as here:

        async def broken(*_: object) -> None:
            raise RuntimeError("a bug")

        here.attempts.run = broken  # type: ignore[method-assign]
        invocation = await here.put()
        for _ in range(4):
            [claim] = await here.queue.claim(*KEY, most=1)
            await here.queue.release(claim)
        await here.serve(echo)
        record = await here.finished(invocation)
        assert record.status is Status.FAILED
        assert record.reason is not None
        assert "an error of its own (RuntimeError)" in record.reason
        assert here.failure(invocation) == record.reason
    assert "a bug" in caplog.text


async def test_an_s3_that_is_away_for_a_while_is_waited_for(tmp_path: Path) -> None:
    s3 = LocalS3(tmp_path / "objects", "inbox", "out")
    s3.write("s3://inbox/data", b"data")
    async with world(tmp_path, s3, patience_seconds=120) as here:
        await here.serve(echo)
        invocation = await here.put(input_location="s3://inbox/data")
        inline = await here.put()
        await asyncio.sleep(0.3)
        s3.start()
        try:
            assert (await here.finished(invocation)).status is Status.COMPLETED
            assert (await here.finished(inline)).status is Status.COMPLETED
        finally:
            s3.stop()
    assert here.output(invocation) == b"data"
