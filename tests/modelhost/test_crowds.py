"""Batches, async functions and threads: clients send ahead, or leave; the host stops; workers die."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .hosts import Host, Starter, wait_until
from .raw import Client, invocation

BLOCKING = """
    import os, time
    def model_fn(model_dir):
        return None
    def predict_fn(data, model):
        if (data == 13).any():
            os._exit(3)
        time.sleep(0.05)
        return data
"""
ASYNC = """
    import asyncio, os
    def model_fn(model_dir):
        return None
    async def predict_fn(data, model):
        if (data == 13).any():
            os._exit(3)
        await asyncio.sleep(0.05)
        return data
"""
BATCHES: tuple[str, dict[str, Any]] = (BLOCKING, {"MOORAGE_BATCH_SIZE": 4})
THREADS: tuple[str, dict[str, Any]] = (BLOCKING, {"MOORAGE_THREADS": 3})
SIDE_BY_SIDE: tuple[str, dict[str, Any]] = (ASYNC, {})
WAYS = pytest.mark.parametrize(
    "way", [BATCHES, THREADS, SIDE_BY_SIDE], ids=["batches", "threads", "side by side"]
)
WORKERS = pytest.mark.parametrize("workers", [1, 2])


def started(hosts: Starter, way: tuple[str, dict[str, Any]], workers: int = 1) -> Host:
    source, environ = way
    return hosts.ready(source, SAGEMAKER_MODEL_SERVER_WORKERS=workers, **environ)


@WAYS
@WORKERS
def test_all_that_was_sent_is_answered_in_order_before_the_host_stops(
    hosts: Starter, way: Any, workers: int
) -> None:
    host = started(hosts, way, workers)
    clients = [Client(host) for _ in range(6)]
    for number, client in enumerate(clients):
        client.send(b"".join(invocation(f"[[{100 * number + each}]]") for each in range(4)))
    assert json.loads(clients[0].reply().text) == [[0]]
    host.process.send_signal(signal.SIGTERM)
    for number, client in enumerate(clients):
        for each in range(0 if number else 1, 4):
            reply = client.reply()
            assert (reply.status, json.loads(reply.text)) == (200, [[100 * number + each]])
        client.__exit__(None, None, None)
    assert host.process.wait(30) == 0


@WAYS
def test_clients_that_leave_leave_nothing_and_disturb_nobody(hosts: Starter, way: Any) -> None:
    host = started(hosts, way)

    def descriptors() -> int:
        processes = (host.process.pid, *host.workers())
        return sum(1 for pid in processes for _ in Path(f"/proc/{pid}/fd").iterdir())

    host.invoke("[[1]]")
    before = descriptors()
    for _ in range(12):
        clients = [Client(host) for _ in range(4)]
        for client in clients:
            client.send(invocation("[[5]]"))
        for number, client in enumerate(clients):
            if number % 2:
                assert client.reply().text == "[[5]]"
            client.__exit__(None, None, None)
    assert host.invoke("[[2]]").text == "[[2]]"
    wait_until(lambda: descriptors() <= before + 1, "their connections to be closed")


@WAYS
def test_a_worker_that_dies_is_told_to_its_callers_and_replaced(hosts: Starter, way: Any) -> None:
    host = started(hosts, way)
    with ThreadPoolExecutor(4) as threads:
        replies = list(threads.map(host.invoke, ["[[1]]", "[[13]]", "[[2]]", "[[3]]"]))
    assert replies[1].status == 500
    assert "ended with exit code 3. It is being replaced." in replies[1].text
    for reply in replies:
        assert reply.status == 200 or "It is being replaced." in reply.text
    assert host.invoke("[[7]]").text == "[[7]]"
