"""HTTP as clients write it, and whose a connection is: the front's, a worker's, a replacement's."""

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .hosts import Starter, state, wait_until
from .raw import PING, Client, invocation
from .test_workers import WAITS

ECHO = "def model_fn(d): return lambda data: data"
SIZES = (
    "def model_fn(d): return None\ndef transform_fn(model, body, content_type, accept): return str(len(body))"
)
WORKERS = pytest.mark.parametrize("workers", [1, 2])


@WORKERS
def test_pipelined_requests_are_answered_in_order(hosts: Starter, workers: int) -> None:
    with Client(hosts.ready(ECHO, SAGEMAKER_MODEL_SERVER_WORKERS=workers)) as client:
        client.send(
            invocation("[1]") + PING + invocation("[2]") + b"GET /no HTTP/1.1\r\n\r\n" + invocation("[3]")
        )
        replies = [client.reply() for _ in range(5)]
    assert [reply.status for reply in replies] == [200, 200, 200, 404, 200]
    assert [replies[i].text for i in (0, 2, 4)] == ["[1]", "[2]", "[3]"]


@WORKERS
def test_a_request_may_come_byte_by_byte(hosts: Starter, workers: int) -> None:
    host = hosts.ready(ECHO, SAGEMAKER_MODEL_SERVER_WORKERS=workers)
    with Client(host) as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(2):
            for byte in invocation(f"[{number}]"):
                client.send(bytes([byte]))
            assert client.reply().text == f"[{number}]"


@WORKERS
def test_a_ping_may_come_byte_by_byte(hosts: Starter, workers: int) -> None:
    with Client(hosts.ready(ECHO, SAGEMAKER_MODEL_SERVER_WORKERS=workers)) as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in PING:
            client.send(bytes([byte]))
        assert client.reply().status == 200


@WORKERS
def test_a_connection_alternates_between_pings_and_invocations(hosts: Starter, workers: int) -> None:
    with Client(hosts.ready(ECHO, SAGEMAKER_MODEL_SERVER_WORKERS=workers)) as client:
        for number in range(3):
            client.send(PING)
            assert (client.reply().status, number) == (200, number)
            client.send(b"\r\n" + invocation(f"[{number}]"))
            assert client.reply().text == f"[{number}]"


@WORKERS
def test_a_client_that_waits_for_continue_gets_it(hosts: Starter, workers: int) -> None:
    with Client(hosts.ready(SIZES, SAGEMAKER_MODEL_SERVER_WORKERS=workers)) as client:
        request = invocation("x" * 5, "Expect: 100-continue")
        client.send(request[:-5])
        assert client.line() == b"HTTP/1.1 100 Continue\r\n"
        assert client.line() == b"\r\n"
        client.send(request[-5:])
        assert client.reply().text == "5"


@WORKERS
def test_a_body_may_come_in_chunks(hosts: Starter, workers: int) -> None:
    with Client(hosts.ready(SIZES, SAGEMAKER_MODEL_SERVER_WORKERS=workers)) as client:
        head = b"POST /invocations?a=b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.send(head + b"3\r\nabc\r\n")
        client.send(b"2\r\nde\r\n0\r\nX-Amzn-Trailer: t\r\n\r\n" + PING)
        assert client.reply().text == "5"
        assert client.reply().status == 200


@WORKERS
def test_a_half_sent_body_holds_nobody_up(hosts: Starter, workers: int) -> None:
    host = hosts.ready(ECHO, SAGEMAKER_MODEL_SERVER_WORKERS=workers)
    slow = [Client(host) for _ in range(3)]
    for client in slow:
        client.send(invocation("[12]")[:-2])
    assert host.invoke("[3]").text == "[3]"
    for client in slow:
        client.send(b"2]")
        assert client.reply().text == "[12]"
        client.send(invocation("[4]"))
        assert client.reply().text == "[4]"
        client.__exit__(None, None, None)


def test_many_slow_bodies_share_few_workers(hosts: Starter) -> None:
    host = hosts.ready(ECHO, SAGEMAKER_MODEL_SERVER_WORKERS=2)

    def slowly(number: int) -> str:
        with Client(host) as client:
            client.send(invocation(f"[{number}]")[:-2])
            assert host.ping().status == 200
            client.send(invocation(f"[{number}]")[-2:])
            return client.reply().text

    with ThreadPoolExecutor(8) as clients:
        assert list(clients.map(slowly, range(100))) == [f"[{number}]" for number in range(100)]


@WORKERS
def test_a_body_that_is_too_large_is_refused_before_it_is_read(hosts: Starter, workers: int) -> None:
    host = hosts.ready(ECHO, SAGEMAKER_MAX_REQUEST_SIZE=100, SAGEMAKER_MODEL_SERVER_WORKERS=workers)
    with Client(host) as client:
        client.send(invocation("[1]") + invocation("x" * 101, "Expect: 100-continue")[:-101])
        assert client.reply().text == "[1]"
        reply = client.reply()
        assert (reply.status, reply.headers["connection"]) == (413, "close")
        assert client.rest() == b""
    with Client(host) as client:
        client.send(b"POST /invocations HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 101)
        assert client.reply().status == 413
        assert client.rest() == b""


@WORKERS
def test_a_malformed_request_is_400_and_the_end(hosts: Starter, workers: int) -> None:
    host = hosts.ready(ECHO, SAGEMAKER_MODEL_SERVER_WORKERS=workers)
    for before in (b"", PING, invocation("[1]")):
        with Client(host) as client:
            client.send(before + b"\x16\x03\x01\r\n\r\n")
            if before:
                assert client.reply().status == 200
            reply = client.reply()
            assert (reply.status, reply.headers["connection"]) == (400, "close")
            assert reply.text.startswith("The request is not valid HTTP/1.1: ")
            assert client.rest() == b""


@WORKERS
@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("start", ["POST /invocations", "GET /ping"])
def test_a_head_that_is_too_large_is_431_and_the_end(
    hosts: Starter, workers: int, start: str, pieces: int
) -> None:
    host = hosts.ready(ECHO, SAGEMAKER_MODEL_SERVER_WORKERS=workers)
    with Client(host) as client:
        head = f"{start} HTTP/1.1\r\nX-Long: {'x' * 70_000}\r\n\r\n".encode()
        for piece in range(pieces):
            client.send(head[piece * len(head) // pieces : (piece + 1) * len(head) // pieces])
        assert client.reply().status == 431
        assert client.rest() == b""


@WORKERS
def test_an_upgrade_is_ignored(hosts: Starter, workers: int) -> None:
    upgrade = ("Connection: Upgrade", "Upgrade: h2c")
    with Client(hosts.ready(ECHO, SAGEMAKER_MODEL_SERVER_WORKERS=workers)) as client:
        client.send(b"GET /ping HTTP/1.1\r\n%b\r\n\r\n" % "\r\n".join(upgrade).encode())
        assert client.reply().status == 200
        client.send(invocation("[1]", *upgrade) + invocation("[2]"))
        assert client.reply().text == "[1]"
        assert client.reply().text == "[2]"


@WORKERS
@pytest.mark.parametrize(
    "request_", [invocation("[1]", "Connection: close"), invocation("[1]", version="1.0")], ids=["1.1", "1.0"]
)
def test_the_last_reply_of_a_connection_says_so(hosts: Starter, workers: int, request_: bytes) -> None:
    with Client(hosts.ready(ECHO, SAGEMAKER_MODEL_SERVER_WORKERS=workers)) as client:
        client.send(request_ + PING)
        reply = client.reply()
        assert (reply.text, reply.headers["connection"]) == ("[1]", "close")
        assert client.rest() == b""


def test_a_reply_has_only_the_headers_that_mean_something(hosts: Starter) -> None:
    with Client(hosts.ready(ECHO)) as client:
        client.send(invocation("[1]", "Connection: close"))
        lines = b"content-type: application/json\r\nconnection: close\r\ncontent-length: 3\r\n\r\n[1]"
        assert client.rest() == b"HTTP/1.1 200 OK\r\n" + lines


def test_a_head_request_gets_no_body(hosts: Starter) -> None:
    with Client(hosts.ready(ECHO)) as client:
        client.send(b"HEAD /invocations HTTP/1.1\r\n\r\nHEAD /ping HTTP/1.1\r\nConnection: close\r\n\r\n")
        heads = client.rest().split(b"\r\n\r\n")
    assert [head.partition(b"\r\n")[0] for head in heads] == [
        b"HTTP/1.1 405 Method Not Allowed",
        b"HTTP/1.1 200 OK",
        b"",
    ]


STREAM = """
    def model_fn(model_dir):
        return None
    def transform_fn(model, body, content_type, accept):
        yield "one"
        yield ""
        yield b"two"
        if body == "[0]":
            raise ValueError("no three")
    """


def test_a_stream_to_http_1_0_ends_with_the_connection(hosts: Starter) -> None:
    with Client(hosts.ready(STREAM)) as client:
        client.send(invocation("[1]", "Connection: keep-alive", version="1.0"))
        head, _, body = client.rest().partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body == b"onetwo"


def test_a_broken_stream_to_http_1_0_is_no_whole_one(hosts: Starter) -> None:
    with Client(hosts.ready(STREAM)) as client:
        client.send(invocation("[0]", version="1.0"))
        with pytest.raises(ConnectionResetError):
            client.rest()


def test_a_stream_to_http_1_0_whose_worker_dies_is_no_whole_one(hosts: Starter) -> None:
    host = hosts.ready("""
        import time
        def model_fn(model_dir):
            return None
        def predict_fn(data, model):
            yield "one\\n"
            time.sleep(60)
        """)
    with Client(host) as client:
        client.send(invocation("[0]", version="1.0"))
        while client.line() != b"one\n":
            continue
        os.kill(host.workers()[0], signal.SIGKILL)
        with pytest.raises(ConnectionResetError):
            client.rest()


@WORKERS
def test_idle_connections_survive_the_death_of_their_worker(hosts: Starter, workers: int) -> None:
    host = hosts.ready(ECHO, SAGEMAKER_MODEL_SERVER_WORKERS=workers)
    clients = [Client(host) for _ in range(5)]
    for client in clients:
        client.send(invocation("[1]"))
        assert client.reply().text == "[1]"
    for worker in host.workers():
        wait_until(lambda worker=worker: state(worker) == "S", "it to be done with the last reply")  # type: ignore[misc]
        os.kill(worker, signal.SIGKILL)
    for client in clients:
        client.send(invocation("[2]"))
        assert client.reply().text == "[2]"
        client.__exit__(None, None, None)


def test_who_waits_survives_the_death_of_the_worker(hosts: Starter) -> None:
    host = hosts.ready(WAITS)
    (host.base / "go-b").touch()
    with Client(host) as first, Client(host) as kept:
        kept.send(invocation("b"))
        assert kept.reply().status == 200
        first.send(invocation("a"))
        wait_until((host.base / "running-a").exists, "a to run")
        kept.send(invocation("b"))
        os.kill(host.workers()[0], signal.SIGKILL)
        assert first.reply().status == 500
        assert kept.reply().text == '"b"'


def test_a_half_sent_request_is_lost_with_its_worker_and_told_so(hosts: Starter) -> None:
    host = hosts.ready(ECHO)
    with Client(host) as client, Client(host) as other:
        client.send(invocation("[1]", "Expect: 100-continue")[:-3])
        assert client.line() == b"HTTP/1.1 100 Continue\r\n"  # the worker has read the head
        assert client.line() == b"\r\n"
        other.send(invocation("[2]"))
        assert other.reply().text == "[2]"
        os.kill(host.workers()[0], signal.SIGKILL)
        reply = client.reply()
        assert (reply.status, reply.headers["connection"]) == (500, "close")
        assert "It is being replaced." in reply.text


def test_places_of_connections_are_used_again(hosts: Starter) -> None:
    host = hosts.ready(ECHO)

    def descriptors() -> int:
        processes = (host.process.pid, *host.workers())
        return sum(1 for pid in processes for _ in Path(f"/proc/{pid}/fd").iterdir())

    host.invoke("[1]")
    before = descriptors()
    for number in range(50):
        assert host.invoke(f"[{number}]").text == f"[{number}]"
    wait_until(lambda: descriptors() <= before, "all of them to be closed")


def test_several_workers_share_the_work(hosts: Starter) -> None:
    host = hosts.ready(WAITS, SAGEMAKER_MODEL_SERVER_WORKERS=3)
    with Client(host) as a, Client(host) as b, Client(host) as c:
        for round_ in range(3):
            for client, name in ((a, "a"), (b, "b"), (c, "c")):
                client.send(invocation(f"{name}{round_}"))
                wait_until((host.base / f"running-{name}{round_}").exists, "it to run beside the others")
            for name in "abc":
                (host.base / f"go-{name}{round_}").touch()
            assert [client.reply().text for client in (a, b, c)] == [f'"{name}{round_}"' for name in "abc"]


def test_more_connections_at_once_than_the_kernel_passes_on(hosts: Starter) -> None:
    """While the worker is busy, descriptors and messages for it wait in the front."""
    host = hosts.ready(WAITS)
    with Client(host) as first:
        first.send(invocation("a"))
        wait_until((host.base / "running-a").exists, "a to run")
        clients = [Client(host) for _ in range(400)]
        for client in clients:
            client.send(invocation("b"))
        assert host.ping().status == 200
        (host.base / "go-a").touch()
        (host.base / "go-b").touch()
        for client in clients:
            assert client.reply().text == '"b"'
            client.__exit__(None, None, None)


def test_sigterm_serves_a_body_that_is_on_its_way(hosts: Starter) -> None:
    host = hosts.ready(ECHO)
    with Client(host) as client, Client(host) as idle:
        idle.send(invocation("[0]"))
        assert idle.reply().text == "[0]"
        client.send(invocation("[1]")[:-1])
        assert host.invoke("[2]").text == "[2]"
        host.process.send_signal(signal.SIGTERM)
        assert idle.rest() == b""
        client.send(b"]")
        reply = client.reply()
        assert (reply.text, reply.headers["connection"]) == ("[1]", "close")
        assert host.process.wait(30) == 0


def test_a_worker_that_dies_while_the_host_stops_is_replaced_for_those_who_wait(hosts: Starter) -> None:
    host = hosts.ready(WAITS)
    with Client(host) as first, Client(host) as second:
        first.send(invocation("a"))
        wait_until((host.base / "running-a").exists, "a to run")
        second.send(invocation("b"))
        host.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not host.is_open(), "the port to close")
        os.kill(host.workers()[0], signal.SIGKILL)
        (host.base / "go-b").touch()
        assert first.reply().status == 500
        assert second.reply().text == '"b"'
    assert host.process.wait(30) == 0
