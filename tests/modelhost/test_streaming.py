"""Generators as results: parts as they come, backpressure, errors in the middle, clients that leave."""

import contextlib
import http.client
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .hosts import Host, Starter, wait_until

# One generator for each way of waiting between parts. Each says when it waits and when it has cleaned up.
SYNC = """
    import threading, time
    never = threading.Event()
    def model_fn(model_dir):
        return None
    def transform_fn(model, body, content_type, accept):
        try:
            yield "first\\n"
            (BASE / "waiting").touch()
            if body == "sleep":
                time.sleep(60)
            elif body == "lock":
                never.wait()
            elif body == "loop":
                while True:
                    pass
            elif body == "send":
                while True:
                    yield b"x" * 10_000
            yield "second\\n"
        finally:
            time.sleep(0.05)  # not interrupted a second time
            (BASE / "closed").touch()
    """
ASYNC = """
    import asyncio
    def model_fn(model_dir):
        return None
    async def transform_fn(model, body, content_type, accept):
        try:
            yield "first\\n"
            (BASE / "waiting").touch()
            if body == "sleep":
                await asyncio.sleep(60)
            elif body == "send":
                while True:
                    yield b"x" * 10_000
            yield "second\\n"
        finally:
            await asyncio.sleep(0.05)
            (BASE / "closed").touch()
    """


@contextmanager
def streaming(host: Host, body: str, **options: int) -> Iterator[http.client.HTTPResponse]:
    connection = host.connect()
    if options:
        connection.sock = socket.socket()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options["receive_buffer"])
        connection.sock.settimeout(30)
        connection.sock.connect(("127.0.0.1", host.port))
    connection.request(
        "POST", "/invocations", body, {"Content-Type": "text/csv", "Accept": "text/event-stream"}
    )
    response = connection.getresponse()
    try:
        yield response
    finally:
        response.close()
        connection.close()


@pytest.mark.parametrize("source", [SYNC, ASYNC], ids=["sync", "async"])
def test_parts_are_chunks_of_one_body(hosts: Starter, source: str) -> None:
    host = hosts.ready(source)
    reply = host.invoke("on", "text/csv", Accept="text/event-stream")
    assert reply.text == "first\nsecond\n"
    assert reply.headers["transfer-encoding"] == "chunked"
    assert reply.headers["content-type"] == "text/event-stream"
    assert (host.base / "closed").exists()


@pytest.mark.parametrize(
    ("source", "body"),
    [(SYNC, "sleep"), (SYNC, "lock"), (SYNC, "loop"), (SYNC, "send"), (ASYNC, "sleep"), (ASYNC, "send")],
    ids=["sync-sleep", "sync-lock", "sync-loop", "sync-send", "async-sleep", "async-send"],
)
def test_a_client_that_leaves_closes_the_generator(hosts: Starter, source: str, body: str) -> None:
    host = hosts.ready(source)
    with streaming(host, body) as response:
        assert response.readline() == b"first\n", "it is here before the second exists"
        wait_until((host.base / "waiting").exists, "the generator to wait")
        worker = host.workers()
        left = time.monotonic()
    wait_until((host.base / "closed").exists, "its finally")
    # 100 ms and the 50 ms of its own on a quiet machine.
    assert time.monotonic() - left < 2
    assert host.invoke("on", "text/csv").text == "first\nsecond\n"
    assert host.workers() == worker, "the worker lives on"
    assert "Traceback" not in host.log


def test_a_client_that_leaves_before_the_first_part(hosts: Starter) -> None:
    host = hosts.ready("""
        import time
        def model_fn(model_dir):
            return None
        def predict_fn(data, model):
            try:
                (BASE / "waiting").touch()
                time.sleep(60)
                yield "never"
            finally:
                (BASE / "closed").touch()
        """)
    connection = host.connect()
    connection.request("POST", "/invocations", "[]", {"Content-Type": "application/json"})
    wait_until((host.base / "waiting").exists, "the generator to wait")
    connection.close()
    wait_until((host.base / "closed").exists, "its finally")


def test_an_async_function_is_cancelled(hosts: Starter) -> None:
    host = hosts.ready("""
        import asyncio
        def model_fn(model_dir):
            return None
        async def predict_fn(data, model):
            try:
                (BASE / "waiting").touch()
                await asyncio.sleep(60)
            finally:
                (BASE / "closed").touch()
        """)
    connection = host.connect()
    connection.request("POST", "/invocations", "[]", {"Content-Type": "application/json"})
    wait_until((host.base / "waiting").exists, "the function to wait")
    connection.close()
    wait_until((host.base / "closed").exists, "its finally")


def test_a_slow_client_holds_the_generator_back(hosts: Starter) -> None:
    host = hosts.ready("""
        def model_fn(model_dir):
            return None
        def transform_fn(model, body, content_type, accept):
            for number in range(2_000):
                (BASE / "made").write_text(str(number))
                yield b"x" * 50_000
        """)

    def made() -> int:
        return int((host.base / "made").read_text() or 0)

    with streaming(host, "", receive_buffer=10_000) as response:
        wait_until((host.base / "made").exists, "the first part")
        before = -1
        while before != (before := made()):  # until it stands still
            time.sleep(0.3)
        assert before < 400, "the kernel's buffers, and little of ours"
        assert host.ping().status == 200
        assert len(response.read()) == 100_000_000


def test_an_error_in_the_middle_breaks_the_connection(hosts: Starter) -> None:
    host = hosts.ready("""
        def model_fn(model_dir):
            return None
        def predict_fn(data, model):
            yield "first"
            raise ValueError("no second")
        """)
    connection = host.connect()
    connection.request("POST", "/invocations", "[]", {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    connection.close()
    assert "ValueError: no second" in host.log


def test_an_error_before_the_first_part_is_500(hosts: Starter) -> None:
    host = hosts.ready("""
        def model_fn(model_dir):
            return None
        def predict_fn(data, model):
            if data.size == 0:
                raise ValueError("nothing asked")
            yield 5
        """)
    reply = host.invoke("[]")
    assert reply.status == 500
    assert reply.text.startswith("ValueError: nothing asked")
    assert "a part of this one is a int" in host.invoke("[1]").text


def test_a_worker_that_dies_in_a_stream_breaks_the_connection(hosts: Starter) -> None:
    host = hosts.ready(SYNC)
    with streaming(host, "sleep") as response:
        assert response.readline() == b"first\n"
        os.kill(host.workers()[0], 9)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()
    wait_until(lambda: host.ping().status == 200, "the replacement")


def test_headers_set_before_the_first_part_count(hosts: Starter) -> None:
    host = hosts.ready("""
        def model_fn(model_dir):
            return None
        def predict_fn(data, model, context):
            context.set_response_header("X-Amzn-SageMaker-Custom-Attributes", "early")
            context.set_response_content_type("text/plain")
            yield "a"
        def output_fn(prediction, accept):
            for part in prediction:
                yield part.upper()
        """)
    reply = host.invoke("[]")
    assert reply.text == "A"
    assert reply.headers["x-amzn-sagemaker-custom-attributes"] == "early"
    assert reply.headers["content-type"] == "text/plain"


def test_a_stream_without_parts_is_an_empty_body(hosts: Starter) -> None:
    host = hosts.ready("def model_fn(d): return lambda data: iter(())")
    reply = host.invoke("[]")
    assert (reply.status, reply.body) == (200, b"")


# --- clients that do not read -------------------------------------------------------------------------

ENDLESS = """
    import asyncio, os
    live = set()
    def model_fn(model_dir):
        return None
    def endless(name):
        live.add(name)
        try:
            while True:
                yield b"x" * 50_000
        finally:
            live.discard(name)
            (BASE / f"closed-{name}").touch()
    async def endless_async(name):
        async with asyncio.timeout(600):  # belongs to its task
            try:
                while True:
                    yield b"x" * 50_000
            finally:
                await asyncio.sleep(0)
                (BASE / f"closed-{name}").touch()
    async def finite(count):
        for number in range(count):
            yield str(number).encode().rjust(50_000, b".")
    def transform_fn(model, body, content_type, accept):
        kind, _, name = body.partition(" ")
        if kind == "sync":
            return endless(name)
        if kind == "async":
            return endless_async(name)
        if kind == "finite":
            return finite(int(name))
        if kind == "large":
            return b"y" * 20_000_000
        return body
    """


ON = b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: text/csv\r\nContent-Length: 2\r\n\r\non"


def unread(host: Host, body: str, count: int = 1) -> list[socket.socket]:
    """Clients that have asked for a stream, and read nothing of it."""
    clients = []
    for number in range(count):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
        client.settimeout(30)
        client.connect(("127.0.0.1", host.port))
        text = f"{body} {number}".encode()
        head = (
            b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: text/csv\r\nContent-Length: %d\r\n\r\n"
        )
        client.sendall(head % len(text) + text)
        clients.append(client)
    return clients


def close_all(clients: list[socket.socket]) -> None:
    for client in clients:
        client.close()


@pytest.mark.parametrize(
    ("kind", "workers", "count"),
    [("sync", "1", 100), ("sync", "2", 20), ("async", "1", 20), ("async", "2", 20)],
)
def test_clients_that_do_not_read_hold_nobody_up(hosts: Starter, kind: str, workers: str, count: int) -> None:
    host = hosts.ready(ENDLESS, SAGEMAKER_MODEL_SERVER_WORKERS=workers)
    clients = unread(host, kind, count)
    try:
        began = time.monotonic()
        for _ in range(3):
            assert host.invoke("on", "text/csv").text == "on"
        assert host.invoke("finite 20", "text/csv").body[-2:] == b"19"
        # Each of them has 50 ms, once.
        assert time.monotonic() - began < 20
        assert host.ping().status == 200
    finally:
        close_all(clients)
    for number in range(count):
        wait_until((host.base / f"closed-{number}").exists, "the generator's finally")
    assert host.invoke("on", "text/csv").text == "on"
    assert "Traceback" not in host.log


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stream_goes_on_when_its_client_reads_again(hosts: Starter, workers: str) -> None:
    host = hosts.ready(ENDLESS, SAGEMAKER_MODEL_SERVER_WORKERS=workers)
    with (
        streaming(host, "finite 400", receive_buffer=10_000) as one,
        streaming(host, "finite 400", receive_buffer=10_000) as other,
    ):
        for _ in range(4):
            for response in (one, other):
                assert len(response.read(1_000_000)) == 1_000_000
                assert host.invoke("on", "text/csv").text == "on"
        expected = b"".join(str(number).encode().rjust(50_000, b".") for number in range(80, 400))
        assert one.read() == expected
        assert other.read() == expected


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_whole_reply_that_nobody_reads_holds_nobody_up(hosts: Starter, workers: str) -> None:
    host = hosts.ready(ENDLESS, SAGEMAKER_MODEL_SERVER_WORKERS=workers)
    clients = unread(host, "large", 10)
    try:
        assert host.invoke("on", "text/csv").text == "on"
        for client in clients:
            response = http.client.HTTPResponse(client)
            response.begin()
            assert len(response.read()) == 20_000_000
        client.sendall(ON)
        response = http.client.HTTPResponse(client)
        response.begin()
        assert response.read() == b"on"
    finally:
        close_all(clients)


def test_replies_to_many_requests_at_once_that_nobody_reads_hold_nobody_up(hosts: Starter) -> None:
    host = hosts.ready(ENDLESS)
    (client,) = unread(host, "on")
    many = b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n" * 1000
    client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        for _ in range(1000):
            client.send(many)
    assert host.invoke("on", "text/csv").text == "on"
    client.close()


def test_memory_of_streams_that_nobody_reads_is_bounded(hosts: Starter) -> None:
    host = hosts.ready(ENDLESS)
    (worker,) = host.workers()

    def resident() -> int:
        return int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    assert host.invoke("on", "text/csv").text == "on"
    before = resident()
    clients = unread(host, "sync", 100)
    try:
        for _ in range(5):
            assert host.invoke("on", "text/csv").text == "on"
        assert resident() - before < 100 * 150_000  # of each one part, of 50,000 bytes
    finally:
        close_all(clients)


def test_a_host_whose_clients_left_unread_streams_stops(hosts: Starter) -> None:
    host = hosts.ready(ENDLESS)
    clients = unread(host, "sync", 3)
    assert host.invoke("on", "text/csv").text == "on"
    close_all(clients)
    assert host.stop() == 0


def test_a_model_may_ask_not_to_be_called_between_parts(hosts: Starter) -> None:
    host = hosts.ready(ENDLESS, MOORAGE_INTERLEAVE_STREAMS="false")
    (client,) = unread(host, "sync")
    with socket.create_connection(("127.0.0.1", host.port)) as other:
        other.settimeout(1)
        wait_until(lambda: client.recv(1), "the first byte")
        other.sendall(ON)
        with pytest.raises(TimeoutError):
            other.recv(1)
        client.close()
        other.settimeout(30)
        assert other.recv(12) == b"HTTP/1.1 200"
