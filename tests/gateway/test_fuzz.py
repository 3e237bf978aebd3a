"""Any bytes at all, on either side: no exception escapes, nothing hangs, and the next request is answered.

`MOORAGE_FUZZ_SECONDS=600 python -m pytest tests/gateway/test_fuzz.py -k any_request` tries requests for so long; what
it prints first has the seed, which `MOORAGE_FUZZ_SEED` takes to do the same again.
"""

import asyncio
import gc
import os
import random
import resource
import time
import tracemalloc
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.gateway.harness import (
    HEALTH,
    ContainerConnection,
    Gateway,
    chunked,
    head,
    request,
    signed,
    start_gateway,
)

SHORT = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
FUZZ_SECONDS = float(os.environ.get("MOORAGE_FUZZ_SECONDS", "0"))
MOST_GROWTH = 1024 * 1024
"""Bytes: more than all that the gateway keeps of requests on purpose, to be quick with the next one like it."""

PATH = "/endpoints/echo/invocations"
TOKENS = [
    b"GET ", b"POST ", b"HEAD ", b"CONNECT ", b"/", b"*", b"/endpoints/echo/invocations", b"/_moorage/health",
    b"http://a/", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"\r\n", b"\r", b"\n", b"\0",
    b": ", b" ", b"\t", b"Host: a\r\n",
    b"Content-Length: 3\r\n", b"Content-Length: 9999999999\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: x\r\n",
    b"Authorization: AWS4-HMAC-SHA256 x=y\r\n", b"X-Amz-Date: \xff\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"abc",
    b"x" * 9000, b"\xff\xfe", b"\x16\x03\x01",
]  # fmt: skip


def valid() -> list[bytes]:
    """Requests that are right, for the five minutes that a signature is good."""
    return [
        request(b"body"),
        request(b"x" * 2000, headers={"Content-Type": "a/b", "Accept": "c"}),
        head(PATH, {**signed(body=b"abcdef"), "Transfer-Encoding": "chunked"}) + chunked(b"abc", b"def"),
        head(PATH, {**signed(body=b"abc"), "Expect": "100-continue", "Content-Length": "3"}) + b"abc",
        request(b"{}", "/", headers={"X-Amz-Target": "SageMaker.ListEndpoints"}),
        request(b"body", "/endpoints/echo/async-invocations"),
        request(b"body", "/bucket/key", method="PUT", service="s3"),
        request(b"", "/bucket/key", method="HEAD", service="s3"),
        HEALTH,
    ]


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """Some messages that were right, with some of their bytes replaced, removed, doubled or cut off."""
    raw = b"".join(draw(st.lists(st.sampled_from(originals), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(raw)))
        length = draw(st.integers(0, 20))
        middle = draw(
            st.one_of(st.binary(max_size=4), st.sampled_from([b"", b"\r\n", b"\n", raw[at : at + 40]]))
        )
        raw = raw[:at] + middle + raw[at + length :]
    return raw if draw(st.booleans()) else raw[: draw(st.integers(0, len(raw)))]


def requests() -> st.SearchStrategy[bytes]:
    tokens = st.lists(st.sampled_from(TOKENS), max_size=14).map(b"".join)
    return st.one_of(st.binary(max_size=300), tokens, mutated(valid()))


REPLIES = st.one_of(
    st.binary(max_size=300),
    st.lists(
        st.sampled_from(
            [
                *(
                    b"HTTP/1.1 200 OK\r\n",
                    b"HTTP/1.0 500 No\r\n",
                    b"HTTP/1.1 100 C\r\n",
                    b"HTTP/1.1 204 N\r\n",
                ),
                *(
                    b"Content-Length: 3\r\n",
                    b"Transfer-Encoding: chunked\r\n",
                    b"Connection: close\r\n",
                    b"\r\n",
                ),
                *(
                    b"abc",
                    b"3\r\nabc\r\n",
                    b"0\r\n\r\n",
                    b"\xff",
                    b"Content-Type: \xff\r\n",
                    b"HTTP/1.1 101 S\r\n",
                ),
                b"Connection: upgrade\r\nUpgrade: x\r\n",
            ]
        ),
        max_size=10,
    ).map(b"".join),
    mutated(
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Type: a/b\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"ab", b"c"),
            b"HTTP/1.1 500 No\r\nX-Amzn-SageMaker-Session-Id: a\r\nContent-Length: 2\r\n\r\nno",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ]
    ),
)


class Running:
    """One gateway for all examples of a test, in a loop that stands still between them."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._manager = start_gateway(
            header_timeout_seconds=2.0, body_timeout_seconds=2.0, invocation_timeout_seconds=2.0
        )
        self.gateway: Gateway = self.run(self._manager.__aenter__())

    def run(self, step: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(step, 30))

    def close(self) -> None:
        self.run(self._manager.__aexit__(None, None, None))
        self._loop.close()


@pytest.fixture
def running() -> Iterator[Running]:
    running = Running()
    yield running
    running.close()


@pytest.mark.timeout(FUZZ_SECONDS + 120)
def test_any_request_bytes(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    gateway = running.gateway
    running.run(gateway.echo())
    tried = 0

    def attempt(raw: bytes, cuts: list[int], half_close: bool, known: bool) -> None:
        async def step() -> None:
            client = await gateway.connect()
            if known:  # then what comes next is compared with this
                assert (await client.call(request(b"first"))).body == b"first"
            start = 0
            for cut in [*sorted(cuts), len(raw)]:
                client.send(raw[start:cut])
                start = max(start, cut)
                await asyncio.sleep(0)
            if half_close:
                client.writer.write_eof()
                assert_replies(await client.rest())
            else:
                assert await gateway.is_alive()
            await client.closed()
            assert (await gateway.call(request(b"next"))).body == b"next"

        nonlocal tried
        tried += 1
        running.run(step())

    def round_of_attempts(number: int) -> int:
        """Memory that the gateway's own code holds after it, in bytes."""
        cuts = st.lists(st.integers(1, 4000), max_size=3)
        seed(number)(SHORT(given(requests(), cuts, st.booleans(), st.booleans())(attempt)))()
        return held_by_the_gateway()

    first = int(os.environ.get("MOORAGE_FUZZ_SEED", random.getrandbits(32)))
    say(capsys, f"seed {first}, {FUZZ_SECONDS:g} seconds")
    end = time.monotonic() + FUZZ_SECONDS
    tracemalloc.start()
    try:
        before = held = round_of_attempts(first)
        rounds = 1
        while time.monotonic() < end or rounds < 2:
            held = round_of_attempts(first + rounds)
            rounds += 1
            assert held - before < MOST_GROWTH, f"{rounds} rounds: {before} bytes became {held}"
    finally:
        tracemalloc.stop()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    say(
        capsys,
        f"seed {first}: {tried} requests in {rounds} rounds, each followed by a valid one that was answered; "
        f"the gateway held {before} bytes after the first round and {held} after the last; "
        f"the whole test {peak} MiB at most",
    )


def held_by_the_gateway() -> int:
    """Bytes that live and were allocated by a line of the gateway's code, C extensions that it calls included."""
    gc.collect()
    ours = tracemalloc.Filter(inclusive=True, filename_pattern="*/moorage/*")
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces((ours,)).traces)


def say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Whoever waits ten minutes wants to see it, and everyone else only when the test fails."""
    if FUZZ_SECONDS:
        with capsys.disabled():
            print(f"\n{text}")
    else:
        print(text)


def assert_replies(raw: bytes) -> None:
    """What came back is nothing, or begins as a reply."""
    assert not raw or raw.startswith((b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 ")), raw


def test_any_reply_bytes(running: Running) -> None:
    gateway = running.gateway
    raw = b""

    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.write(raw)

    running.run(gateway.echo())
    container = running.run(gateway.container(script))
    gateway.route(container, name="odd")

    @SHORT
    @given(REPLIES)
    def attempt(reply_bytes: bytes) -> None:
        nonlocal raw
        raw = reply_bytes

        async def step() -> None:
            reply = await gateway.call(request(b"x", "/endpoints/odd/invocations"))
            assert reply.status in (200, 424, 503)
            assert reply.status == 200 or reply.error in ("ModelError", "ServiceUnavailable")
            assert " 0 outstanding" in repr(gateway.server.table)
            assert (await gateway.call(request(b"next"))).body == b"next"

        running.run(step())

    attempt()


def test_any_controller_and_s3_reply_bytes(running: Running) -> None:
    gateway = running.gateway
    raw = b""

    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.write(raw)

    running.run(gateway.upstream(gateway.settings.s3_socket, script))

    @SHORT
    @given(REPLIES, st.sampled_from(["GET", "HEAD", "PUT"]))
    def attempt(reply_bytes: bytes, method: str) -> None:
        nonlocal raw
        raw = reply_bytes

        async def step() -> None:
            client = await gateway.client()
            body = b"" if method != "PUT" else b"body"
            client.send(request(body, "/b/k", method=method, service="s3", extra={"Connection": "close"}))
            assert_replies(await client.rest())
            client.close()
            assert await gateway.is_alive()

        running.run(step())

    attempt()


def test_any_controller_reply_bytes_to_an_asynchronous_call(running: Running) -> None:
    gateway = running.gateway
    raw = b""

    async def script(connection: ContainerConnection) -> None:
        await connection.request()
        await connection.write(raw)

    running.run(gateway.upstream(gateway.settings.controller_socket, script))
    gateway.route(name="later", asynchronous=True)

    @SHORT
    @given(REPLIES)
    def attempt(reply_bytes: bytes) -> None:
        nonlocal raw
        raw = reply_bytes

        async def step() -> None:
            client = await gateway.client()
            whole = request(b"x", "/endpoints/later/async-invocations", extra={"Connection": "close"})
            client.send(whole)
            assert_replies(await client.rest())
            client.close()
            assert await gateway.is_alive()
            assert not gateway.front.timed_calls

        running.run(step())

    attempt()
