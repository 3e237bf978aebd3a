"""Invocations that run side by side in one worker."""

import http.client
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from .hosts import Host, Starter, wait_until

WAITS_FOR_ALL = """
    import asyncio
    HERE = []
    def model_fn(model_dir):
        return asyncio.Event()
    async def predict_fn(data, model):
        HERE.append(data)
        if len(HERE) == 4:
            model.set()
        await model.wait()
        return data
"""

STREAMS = """
    import asyncio
    HERE = []
    def model_fn(model_dir):
        return asyncio.Event()
    def input_fn(body, content_type):
        return body
    async def predict_fn(data, model):
        HERE.append(data)
        yield f"{data} begins;"
        if len(HERE) == 4:
            model.set()
        await model.wait()
        yield f"{data} ends"
"""

THREADS = """
    import threading
    BARRIER = threading.Barrier(4)
    def model_fn(model_dir):
        return None
    def input_fn(body, content_type):
        return body
    def predict_fn(data, model):
        if data == "stream":
            return parts()
        BARRIER.wait(20)
        return data
    def output_fn(prediction, accept):
        return prediction
    def parts():
        yield "one "
        BARRIER.wait(20)
        yield "two"
"""


def invoke_four(host: Host, bodies: Iterator[str]) -> list[str]:
    with ThreadPoolExecutor(4) as threads:
        return [reply.text for reply in threads.map(host.invoke, bodies)]


@pytest.mark.parametrize("workers", [1])
def test_async_functions_of_several_callers_run_interleaved(hosts: Starter, workers: int) -> None:
    host = hosts.ready(WAITS_FOR_ALL, SAGEMAKER_MODEL_SERVER_WORKERS=workers)
    assert invoke_four(host, map(str, range(4))) == ["0", "1", "2", "3"]
    assert host.stop() == 0


def test_async_streams_start_together(hosts: Starter) -> None:
    host = hosts.ready(STREAMS)
    assert sorted(invoke_four(host, iter("abcd"))) == [f"{each} begins;{each} ends" for each in "abcd"]


def test_threads_run_functions_that_are_not_async(hosts: Starter) -> None:
    host = hosts.ready(THREADS, MOORAGE_THREADS=4)
    assert invoke_four(host, iter(["a", "b", "c", "stream"])) == ["a", "b", "c", "one two"]


def test_a_blocked_thread_holds_up_nobody_else(hosts: Starter) -> None:
    host = hosts.ready(
        """
        import threading
        MAY_END = threading.Event()
        def model_fn(model_dir):
            return None
        def input_fn(body, content_type):
            return body
        def predict_fn(data, model):
            if data == "wait":
                MAY_END.wait(60)
            MAY_END.set()
            return data
        def output_fn(prediction, accept):
            return prediction
        """,
        MOORAGE_THREADS=2,
    )
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(host.invoke, "wait")
        assert host.invoke("go").text == "go"
        assert waiting.result().text == "wait"


def test_a_client_that_does_not_read_holds_up_nobody_else(hosts: Starter) -> None:
    host = hosts.ready("""
        def model_fn(model_dir):
            return None
        async def transform_fn(model, body, content_type, accept):
            if body == "large":
                return parts(), "text/plain"
            return "small"
        async def parts():
            for _ in range(400):
                yield "x" * 100_000
        """)
    connection = host.connect()
    connection.request("POST", "/invocations", "large", {"Content-Type": "text/csv"})
    response = connection.getresponse()
    assert response.read(10) == b"x" * 10
    for _ in range(5):
        assert host.invoke("small", "text/csv").text == "small"
    assert len(response.read()) == 400 * 100_000 - 10
    connection.close()


def test_a_client_that_leaves_ends_its_invocation_alone(hosts: Starter) -> None:
    host = hosts.ready("""
        import asyncio
        LEFT = []
        async def model_fn(model_dir):
            return asyncio.Event()
        async def predict_fn(data, model):
            if data == "left":
                return LEFT
            try:
                await model.wait()
            except asyncio.CancelledError:
                LEFT.append("left")
                raise
        def input_fn(body, content_type):
            return body
        """)
    connection = host.connect()
    connection.request("POST", "/invocations", "stay", {"Content-Type": "text/csv"})
    assert host.invoke("left").text == "[]"
    connection.close()
    wait_until(lambda: host.invoke("left").text == '["left"]', "the end of the other")


def test_an_error_is_told_to_its_caller(hosts: Starter) -> None:
    host = hosts.ready("""
        def model_fn(model_dir):
            return None
        async def predict_fn(data, model):
            raise KeyError("nothing here")
        """)
    reply = host.invoke("1")
    assert reply.status == 500
    assert reply.text.startswith("KeyError: 'nothing here'")
    assert "side_by_side.py" not in reply.text


def test_what_takes_too_long_ends_alone(hosts: Starter) -> None:
    host = hosts.ready(
        """
        import asyncio
        def model_fn(model_dir):
            return None
        def input_fn(body, content_type):
            return float(body)
        async def predict_fn(data, model):
            await asyncio.sleep(data)
            return data
        """,
        SAGEMAKER_MODEL_SERVER_TIMEOUT=1,
    )
    (worker,) = host.workers()
    with ThreadPoolExecutor(2) as threads:
        too_long, long = threads.submit(host.invoke, "60"), threads.submit(host.invoke, "0.9")
        assert long.result().text == "0.9"
        reply = too_long.result()
    assert reply.status == 500
    assert "it took longer than 1 s (SAGEMAKER_MODEL_SERVER_TIMEOUT sets the limit)" in reply.text
    assert host.workers() == [worker]


def test_a_loop_that_is_held_up_is_replaced(hosts: Starter) -> None:
    host = hosts.ready(
        """
        import time
        def model_fn(model_dir):
            return None
        async def predict_fn(data, model):
            time.sleep(data)
            return data
        def input_fn(body, content_type):
            return float(body)
        """,
        SAGEMAKER_MODEL_SERVER_TIMEOUT=1,
    )
    reply = host.invoke("60")
    assert reply.status == 500
    assert "was killed because it took longer than 1 s" in reply.text
    assert host.invoke("0").text == "0.0"


def test_those_in_flight_end_before_the_host_stops(hosts: Starter) -> None:
    host = hosts.ready("""
        import asyncio, pathlib
        def model_fn(model_dir):
            return None
        async def predict_fn(data, model):
            (BASE / "begun").touch()
            await asyncio.sleep(0.5)
            return data
        """)
    with ThreadPoolExecutor(1) as threads:
        reply = threads.submit(host.invoke, "1")
        wait_until((host.base / "begun").exists, "the invocation")
        assert host.stop() == 0
        assert reply.result().text == "1"


def test_requests_of_one_connection_are_answered_in_order(hosts: Starter) -> None:
    host = hosts.ready("""
        import asyncio
        def model_fn(model_dir):
            return None
        def input_fn(body, content_type):
            return float(body)
        async def predict_fn(data, model):
            await asyncio.sleep(data)
            return data
        """)
    connection: http.client.HTTPConnection = host.connect()
    connection.connect()
    for seconds in ("0.2", "0.0"):
        request = f"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: {len(seconds)}\r\n\r\n{seconds}"
        connection.sock.sendall(request.encode())
    received = b""
    while received.count(b"HTTP/1.1 200") < 2 or not received.endswith(b"0.0"):
        received += connection.sock.recv(4096)
    assert received.index(b"\r\n\r\n0.2") < received.index(b"\r\n\r\n0.0")
    connection.close()


def test_contexts_of_those_side_by_side_are_not_mixed(hosts: Starter) -> None:
    host = hosts.ready("""
        import asyncio
        BOTH = []
        def model_fn(model_dir):
            return asyncio.Event()
        async def predict_fn(data, model, context):
            BOTH.append(data)
            if len(BOTH) == 2:
                model.set()
            await model.wait()
            return context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes")
        def output_fn(prediction, accept, context):
            context.set_response_header("X-Amzn-SageMaker-Custom-Attributes", prediction)
            return prediction
        """)
    seen = {}

    def one(name: str) -> None:
        reply = host.invoke("1", X_Amzn_SageMaker_Custom_Attributes=name)
        seen[name] = (reply.text, reply.headers["x-amzn-sagemaker-custom-attributes"])

    threads = [threading.Thread(target=one, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {name: (name, name) for name in ("first", "second")}


def test_a_stream_outlives_the_limit_while_its_parts_come(hosts: Starter) -> None:
    host = hosts.ready(
        """
        import asyncio
        def model_fn(model_dir):
            return None
        async def transform_fn(model, body, content_type, accept):
            return parts(), "text/plain"
        async def parts():
            for _ in range(6):
                await asyncio.sleep(0.3)
                yield "."
        """,
        SAGEMAKER_MODEL_SERVER_TIMEOUT=1,
    )
    began = time.monotonic()
    assert host.invoke("1").text == "......"
    assert time.monotonic() - began > 1.5


def test_a_stream_in_a_thread_whose_client_leaves_is_closed_when_its_part_is_made(hosts: Starter) -> None:
    host = hosts.ready(
        """
        import os, threading, time
        def model_fn(model_dir):
            return None
        def input_fn(body, content_type):
            return body
        def predict_fn(data, model):
            if data == "stream":
                return parts()
            return str(os.path.exists("closed"))
        def output_fn(prediction, accept):
            return prediction
        def parts():
            try:
                yield "one"
                while not os.path.exists("left"):
                    time.sleep(0.01)
                yield "two"
            finally:
                open("closed", "w").close()
        """,
        MOORAGE_THREADS=2,
    )
    client = host.connect()
    client.request("POST", "/invocations", "stream", {"Content-Type": "application/json"})
    assert client.getresponse().read(3) == b"one"
    client.close()
    code = host.base / "model" / "code"
    assert host.invoke("is it?").text == "False"
    (code / "left").touch()
    wait_until((code / "closed").exists, "the generator to be closed")
    assert "already executing" not in host.log
    assert host.stop() == 0
