"""Generators as results: parts as they come, backpressure, errors in the middle, clients that leave."""

import http.client
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

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
