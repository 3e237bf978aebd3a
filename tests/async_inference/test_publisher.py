"""The publisher, with a real SNS (moto's server), real webhooks, and senders that do as they are told."""

import asyncio
import importlib.util
import json
import os
import queue
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest

from moorage.async_inference.base import Notice, Status
from moorage.async_inference.messages import notices
from moorage.async_inference.messages import test_notice as topic_test
from moorage.async_inference.outbox import Backoff, Outbox, Owed
from moorage.async_inference.publisher import Publisher, create_publisher
from moorage.async_inference.senders import NotDelivered, Sender, create_sender
from moorage.auth.credentials import read_or_create_root_key
from moorage.clock import SteadyClock
from moorage.config import Settings
from moorage.storage.database import Database, open_database
from tests.servers import eventually

from .test_messages import COMPLETED_DOCUMENTED, FAILED_DOCUMENTED, INVOCATION

ACCOUNT = "123456789012"  # of moto's topics
LIMIT = 60.0
SHORT = Backoff(first_seconds=0.01, longest_seconds=0.2)
PAGE = Path(__file__).parent.parent.parent / "docs/notifications.md"


class WatchedOutbox(Outbox):
    """Tells when a notice is delivered, or has failed."""

    def __init__(self, database: Database, backoff: Backoff = SHORT) -> None:
        super().__init__(database, backoff=backoff)
        self.arrived: asyncio.Queue[Notice] = asyncio.Queue()
        self.errors: asyncio.Queue[str] = asyncio.Queue()

    async def delivered(self, owed: Owed) -> None:
        await super().delivered(owed)
        self.arrived.put_nowait(owed.notice)

    async def failed(self, owed: Owed, error: str, now: datetime) -> datetime:
        again = await super().failed(owed, error, now)
        self.errors.put_nowait(error)
        return again

    async def owe(self, *notices: Notice) -> None:
        await self.add(notices, datetime.now(UTC))


class Script:
    """A sender that does what a function says; `sent` counts attempts by topic."""

    def __init__(self, act: Callable[[Notice], None] = lambda _: None) -> None:
        self._act = act
        self.sent: Counter[str] = Counter()

    def send(self, notice: Notice) -> None:
        self.sent[notice.topic_arn] += 1
        self._act(notice)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite+aiosqlite:///{tmp_path / 'moorage.db'}")
    yield database
    await database.close()


@pytest.fixture
def outbox(database: Database) -> WatchedOutbox:
    return WatchedOutbox(database)


@asynccontextmanager
async def running(outbox: Outbox, sender: Sender, **options: Any) -> AsyncIterator[Publisher]:
    publisher = Publisher(outbox=outbox, sender=sender, **options)
    task = asyncio.create_task(publisher.run())
    try:
        async with asyncio.timeout(LIMIT):
            yield publisher
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def settings(tmp_path: Path, **values: Any) -> Settings:
    read_or_create_root_key(tmp_path / "credentials", account_id="000000000000")
    return Settings(data_dir=tmp_path, **values)


def to(topic: str, number: int = 0) -> Notice:
    return Notice(
        account_id=ACCOUNT, topic_arn=topic, message=f'{{"n":{number}}}', invocation_id=f"i{number}"
    )


def refuse(_: Notice) -> None:
    raise NotDelivered("it is closed")


# --- the publisher ------------------------------------------------------------------------------------


async def test_what_is_owed_is_delivered_once_and_forgotten(outbox: WatchedOutbox) -> None:
    sender = Script()
    await outbox.owe(to("a", 1), to("b", 2))
    async with running(outbox, sender) as publisher:
        assert {(await outbox.arrived.get()).invocation_id for _ in range(2)} == {"i1", "i2"}
        await outbox.owe(to("a", 3))
        publisher.wake()
        assert await outbox.arrived.get() == to("a", 3)
    assert await outbox.next_due() is None
    assert sender.sent == {"a": 2, "b": 1}


async def test_a_failed_notice_is_tried_again_without_a_call(outbox: WatchedOutbox) -> None:
    failures = iter([True, True, False])

    def act(notice: Notice) -> None:
        if next(failures):
            refuse(notice)

    await outbox.owe(to("a"))
    async with running(outbox, Script(act)):
        assert await outbox.arrived.get() == to("a")
    assert [outbox.errors.get_nowait() for _ in range(2)] == ["it is closed"] * 2


async def test_an_idle_publisher_asks_the_database_nothing(database: Database) -> None:
    asked: asyncio.Queue[None] = asyncio.Queue()

    class Asked(WatchedOutbox):
        async def next_due(self, **without: Any) -> datetime | None:
            asked.put_nowait(None)
            return await super().next_due(**without)

    async with running(Asked(database), Script()) as publisher:
        await asked.get()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await asked.get()
        publisher.wake()
        await asked.get()


async def test_a_topic_that_hangs_delays_no_other(outbox: WatchedOutbox) -> None:
    released = threading.Event()

    def act(notice: Notice) -> None:
        if notice.topic_arn == "dead":
            released.wait(LIMIT)
            refuse(notice)

    sender = Script(act)
    await outbox.owe(*(to("dead", n) for n in range(100)))
    await outbox.owe(*(to("alive", n) for n in range(30)))
    try:
        async with running(outbox, sender):
            arrived = {(await outbox.arrived.get()).invocation_id for _ in range(30)}
        assert arrived == {f"i{n}" for n in range(30)}
        assert sender.sent["dead"] == 1
    finally:
        released.set()


async def test_a_topic_that_begins_to_hang_leaves_threads_to_others(outbox: WatchedOutbox) -> None:
    released, hangs = threading.Event(), threading.Event()

    def act(notice: Notice) -> None:
        if notice.topic_arn == "dead" and hangs.is_set():
            released.wait(LIMIT)

    sender = Script(act)
    await outbox.owe(to("dead"))
    try:
        async with running(outbox, sender) as publisher:
            await outbox.arrived.get()
            hangs.set()
            await outbox.owe(*(to("dead", n) for n in range(20)), *(to("alive", n) for n in range(20)))
            publisher.wake()
            for _ in range(20):
                assert (await outbox.arrived.get()).topic_arn == "alive"
        assert sender.sent["dead"] <= 1 + 4
    finally:
        released.set()


async def test_a_topic_that_fails_rests_and_then_everything_follows(database: Database) -> None:
    outbox = WatchedOutbox(database, Backoff(first_seconds=3600, longest_seconds=3600))
    now, elapsed, is_open = datetime.now(UTC), 0.0, threading.Event()
    clock = SteadyClock(time_of_day=lambda: now, monotonic=lambda: elapsed)

    def act(notice: Notice) -> None:
        if notice.topic_arn == "dead" and not is_open.is_set():
            refuse(notice)

    sender = Script(act)
    await outbox.add([to("dead", n) for n in range(20)], now)
    async with running(outbox, sender, clock=clock) as publisher:
        await outbox.errors.get()
        await outbox.add([to("alive")], now)
        publisher.wake()
        assert await outbox.arrived.get() == to("alive")
        assert sender.sent["dead"] == 1  # the other nineteen rest with it
        is_open.set()
        elapsed += 3600
        publisher.wake()
        assert {(await outbox.arrived.get()).topic_arn for _ in range(20)} == {"dead"}
    assert sender.sent["dead"] == 21


async def test_one_message_that_is_refused_does_not_stop_its_topic(outbox: WatchedOutbox) -> None:
    def act(notice: Notice) -> None:
        if notice.invocation_id == "i0":
            refuse(notice)

    await outbox.owe(*(to("a", n) for n in range(10)))
    async with running(outbox, Script(act)):
        assert {(await outbox.arrived.get()).invocation_id for _ in range(9)} == {
            f"i{n}" for n in range(1, 10)
        }


async def test_after_its_patience_a_notice_is_given_up_with_a_warning(
    outbox: WatchedOutbox, caplog: pytest.LogCaptureFixture
) -> None:
    yesterday = datetime.now(UTC) - timedelta(hours=24)
    await outbox.add([to("a", 1)], yesterday)
    await outbox.owe(to("a", 2))

    def act(notice: Notice) -> None:
        if notice.invocation_id == "i1":
            refuse(notice)

    async with running(outbox, Script(act)):
        assert (await outbox.arrived.get()).invocation_id == "i2"
    assert await outbox.next_due() is None
    assert "gave up notifying a of i1: it is closed" in caplog.text
    assert '"n"' not in caplog.text


async def test_an_error_that_is_not_foreseen_is_a_failure_like_any(
    outbox: WatchedOutbox, caplog: pytest.LogCaptureFixture
) -> None:
    errors = iter([ZeroDivisionError("our mistake"), None])

    def act(_: Notice) -> None:
        error = next(errors)
        if error is not None:
            raise error

    await outbox.owe(to("a"))
    async with running(outbox, Script(act)):
        await outbox.arrived.get()
    assert outbox.errors.get_nowait() == "ZeroDivisionError"
    assert "Traceback" in caplog.text


async def test_a_restart_delivers_what_was_left(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'moorage.db'}"
    database = await open_database(url)
    outbox = WatchedOutbox(database)
    await outbox.owe(to("a"))
    async with running(outbox, Script(refuse)):
        await outbox.errors.get()
    await database.close()

    database = await open_database(url)
    outbox = WatchedOutbox(database)
    async with running(outbox, Script()):
        assert await outbox.arrived.get() == to("a")
    await database.close()


async def test_without_an_endpoint_a_topic_waits_until_there_is_one(
    outbox: WatchedOutbox, tmp_path: Path, receiver: "Receiver"
) -> None:
    await outbox.owe(to("arn:aws:sns:us-east-1:123456789012:t"))
    async with running(outbox, create_sender(settings(tmp_path))):
        assert await outbox.errors.get() == (
            "no SNS endpoint is set: set `sns_endpoint`, or map the topic to a URL in `webhooks`"
        )
    async with running(outbox, create_sender(settings(tmp_path, webhooks={"*": receiver.url}))):
        await outbox.arrived.get()


def test_nothing_is_imported_until_something_is_sent() -> None:
    script = (
        "import sys; import moorage.async_inference.publisher;"
        "print([name for name in ('botocore', 'urllib3') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# --- webhooks -----------------------------------------------------------------------------------------


class Receiver:
    """A web server that keeps what is posted to it. Paths beginning with /fail answer 500, with /moved 307."""

    def __init__(self) -> None:
        self.requests: queue.Queue[tuple[str, Mapping[str, str], bytes]] = queue.Queue()
        received = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                moved = self.path.startswith("/moved")
                self.send_response(500 if self.path.startswith("/fail") else 307 if moved else 204)
                if moved:
                    self.send_header("Location", "/elsewhere")
                received.put((self.path, dict(self.headers), body))
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    async def next(self) -> tuple[str, Mapping[str, str], bytes]:
        return await asyncio.to_thread(self.requests.get, timeout=LIMIT)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def documented_check() -> Callable[..., bool]:
    """The function that the documentation gives to receivers."""
    (code,) = re.findall(r"```python\n(import hashlib.*?)```", PAGE.read_text(), re.S)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102
    check: Callable[..., bool] = names["genuine"]
    return check


async def test_a_webhook_gets_the_same_json_signed(
    database: Database, tmp_path: Path, receiver: Receiver
) -> None:
    genuine = documented_check()
    (owed,) = notices(
        INVOCATION, region="us-east-1", status=Status.FAILED, event_time=datetime.now(UTC), reason="é"
    )
    hooks = {"arn:aws:sns:*:failed": f"{receiver.url}/in?key=1", "*": f"{receiver.url}/fail"}
    publisher = create_publisher(settings(tmp_path, webhooks=hooks, webhook_secret="whsec"), database)
    await Outbox(database).add([owed], datetime.now(UTC))
    task = asyncio.create_task(publisher.run())
    path, headers, body = await receiver.next()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task

    assert path == "/in?key=1"
    assert body.decode() == owed.message
    assert json.loads(body).keys() == json.loads(FAILED_DOCUMENTED).keys()
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Moorage-Topic-Arn"] == INVOCATION.error_topic
    signature = headers["X-Moorage-Signature"]
    assert re.fullmatch(r"t=\d{10},v1=[0-9a-f]{64}", signature)
    assert genuine("whsec", signature, body)
    assert not genuine("other", signature, body)
    assert not genuine("whsec", signature, body + b" ")
    assert not genuine("whsec", signature, body, within_seconds=-1)


def test_without_a_secret_there_is_no_signature(tmp_path: Path, receiver: Receiver) -> None:
    create_sender(settings(tmp_path, webhooks={"*": receiver.url})).send(to("a"))
    _, headers, _ = receiver.requests.get(timeout=LIMIT)
    assert "X-Moorage-Signature" not in headers


@pytest.mark.parametrize(("path", "status"), [("/fail/s3cret", 500), ("/moved/s3cret", 307)])
def test_only_2xx_is_delivered_and_redirects_are_not_followed(
    tmp_path: Path, receiver: Receiver, path: str, status: int
) -> None:
    sender = create_sender(settings(tmp_path, webhooks={"*": receiver.url + path}))
    with pytest.raises(NotDelivered, match=f"^the webhook at 127.0.0.1 answered {status}$"):
        sender.send(to("a"))
    assert receiver.requests.qsize() == 1


def test_a_webhook_that_is_not_there_is_an_error_without_its_path(tmp_path: Path, receiver: Receiver) -> None:
    receiver.close()
    sender = create_sender(settings(tmp_path, webhooks={"*": f"{receiver.url}/s3cret"}))
    with pytest.raises(
        NotDelivered, match=r"the webhook at 127\.0\.0\.1 cannot be reached: .*refused"
    ) as caught:
        sender.send(to("a"))
    assert "s3cret" not in str(caught.value)


async def test_a_webhook_that_fails_does_not_delay_another(
    outbox: WatchedOutbox, tmp_path: Path, receiver: Receiver
) -> None:
    hooks = {"dead*": f"{receiver.url}/fail", "alive": f"{receiver.url}/in"}
    await outbox.owe(*(to(f"dead{n % 3}", n) for n in range(60)), *(to("alive", n) for n in range(5)))
    async with running(outbox, create_sender(settings(tmp_path, webhooks=hooks))):
        for _ in range(5):
            assert (await outbox.arrived.get()).topic_arn == "alive"


# --- SNS ----------------------------------------------------------------------------------------------


class Moto:
    """moto's server in a process of its own, which forgets everything when it stops."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "moto.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self.url = ""

    def start(self) -> "Moto":
        """Start, or start again on the same port."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)],
                stdout=log,
                stderr=log,
            )
        eventually(self._is_ready, timeout=LIMIT, what=self._log.read_text)
        return self

    def _is_ready(self) -> bool:
        found = re.search(r"Running on (http://127\.0\.0\.1:(\d+))", self._log.read_text())
        if found:
            self.url, self._port = found[1], int(found[2])
        return found is not None

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self, service: str, region: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=region,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def subscribed_topic(self, name: str, region: str) -> tuple[str, str]:
        """A topic's ARN, and the URL of a queue that gets what is published to it."""
        sns, sqs = self.client("sns", region), self.client("sqs", region)
        topic: str = sns.create_topic(Name=name)["TopicArn"]
        url: str = sqs.create_queue(QueueName=name)["QueueUrl"]
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=attributes["QueueArn"])
        return topic, url

    async def receive(self, queue_url: str, region: str) -> dict[str, Any]:
        """The next message that SNS put into a queue, with SNS's envelope."""
        sqs = self.client("sqs", region)
        reply = await asyncio.to_thread(sqs.receive_message, QueueUrl=queue_url, WaitTimeSeconds=20)
        (message,) = reply["Messages"]
        envelope: dict[str, Any] = json.loads(message["Body"])
        return envelope


@pytest.fixture
def moto(tmp_path: Path) -> Iterator[Moto]:
    if importlib.util.find_spec("moto") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no moto")
        pytest.skip("no moto: pip install 'moto[server]'")
    server = Moto(tmp_path).start()
    yield server
    server.stop()


async def test_sns_gets_every_documented_member(moto: Moto, outbox: WatchedOutbox, tmp_path: Path) -> None:
    region = "eu-west-1"  # the topic's, not ours
    topic, queue_url = moto.subscribed_topic("done", region)
    documented = json.loads(COMPLETED_DOCUMENTED)
    owed = Notice(account_id=ACCOUNT, topic_arn=topic, message=json.dumps(documented), invocation_id="i")
    await outbox.owe(owed, topic_test(ACCOUNT, topic))
    async with running(outbox, create_sender(settings(tmp_path, sns_endpoint=moto.url), environment={})):
        envelopes = [await moto.receive(queue_url, region) for _ in range(2)]
    assert {envelope["TopicArn"] for envelope in envelopes} == {topic}
    received = [json.loads(envelope["Message"]) for envelope in envelopes]
    assert documented in received
    assert {
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "TestNotification",
    } in received


async def test_an_sns_that_is_down_gets_the_message_when_it_is_back(
    moto: Moto, outbox: WatchedOutbox, tmp_path: Path
) -> None:
    region = "us-east-1"
    moto.stop()
    sns = create_sender(settings(tmp_path, sns_endpoint=moto.url), environment={})
    tried, subscribed = threading.Event(), threading.Event()

    def act(notice: Notice) -> None:
        if (
            tried.is_set()
        ):  # moto has forgotten the topic; do not come between its making and its subscription
            subscribed.wait(LIMIT)
        tried.set()
        sns.send(notice)

    await outbox.owe(to(f"arn:aws:sns:{region}:{ACCOUNT}:done", 7))
    async with running(outbox, Script(act)):
        assert "Could not connect" in await outbox.errors.get()
        await asyncio.to_thread(moto.start)
        _, queue_url = await asyncio.to_thread(moto.subscribed_topic, "done", region)
        subscribed.set()
        await outbox.arrived.get()
        assert json.loads((await moto.receive(queue_url, region))["Message"]) == {"n": 7}
    assert outbox.errors.empty()


async def test_what_sns_refuses_is_told(moto: Moto, tmp_path: Path) -> None:
    sender = create_sender(settings(tmp_path, sns_endpoint=moto.url), environment={})
    with pytest.raises(NotDelivered, match="SNS answered NotFound"):
        await asyncio.to_thread(sender.send, to(f"arn:aws:sns:us-east-1:{ACCOUNT}:absent"))
