"""Five hundred clients at once, and the death of an instance among them."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.raw_client import RawClient, Reply
from tests.conformance.targets import model, unique
from tests.servers import MoorageServer, eventually

CLIENTS = 500
INSTANCES = 2


@pytest.fixture(scope="module")
def steady(target: MoorageServer, sagemaker: Any) -> Iterator[str]:
    """An endpoint that takes 100 ms an invocation, on two instances of four workers."""
    name = unique("steady")
    workers = {"SAGEMAKER_MODEL_SERVER_WORKERS": "4"}
    target.deploy(name, model("steady"), instances=INSTANCES, environment=workers)
    yield name
    sagemaker.delete_endpoint(EndpointName=name)


def _by_instance(replies: list[Reply]) -> Counter[int]:
    return Counter(int(reply.body) for reply in replies if reply.status == 200)


async def test_five_hundred_invocations_at_once_all_succeed(target: MoorageServer, steady: str) -> None:
    client = RawClient(target)
    started = time.monotonic()
    replies = await asyncio.gather(*(client.invoke(steady, b"%d" % number) for number in range(CLIENTS)))
    assert Counter(reply.status for reply in replies) == {200: CLIENTS}
    answered = _by_instance(replies)
    assert len(answered) == INSTANCES
    assert min(answered.values()) > CLIENTS / INSTANCES / 2, "both had their share"
    assert time.monotonic() - started < 30, "500 × 100 ms on 8 workers are 6.25 s"


async def test_a_killed_instance_fails_only_what_was_inside_it(
    ours: MoorageServer, sagemaker: Any, steady: str
) -> None:
    client = RawClient(ours)
    one_that_answers: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    answered = 0

    async def invoke(number: int) -> Reply:
        nonlocal answered
        reply = await client.invoke(steady, b"%d" % number)
        answered += 1
        if answered == CLIENTS // 10:
            one_that_answers.set_result(int(reply.body))
        return reply

    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(invoke(number)) for number in range(CLIENTS)]
        victim = await one_that_answers
        os.kill(victim, signal.SIGKILL)
    replies = [call.result() for call in calls]
    failures = [reply for reply in replies if reply.status != 200]
    # Least outstanding requests: no instance ever holds more than its half.
    assert 0 < len(failures) <= CLIENTS // INSTANCES + 1
    # What it had not begun goes to the other one, as far as that takes it.
    refused = [reply for reply in failures if reply.status == 503]
    assert all("takes at once" in reply.error()["Message"] for reply in refused)
    for reply in (reply for reply in failures if reply not in refused):
        assert (reply.status, reply.error()["Code"]) == (424, "ModelError")
        # It may have died between the head of its answer and the body.
        words = {
            0: "Received server error (0) from model with message ",
            200: "Received server error (200) from primary and could not load the entire response body.",
        }
        assert reply.error()["Message"].startswith(words[reply.error()["OriginalStatusCode"]])

    def instances_in_service() -> int:
        endpoint = sagemaker.describe_endpoint(EndpointName=steady)
        count: int = endpoint["ProductionVariants"][0]["CurrentInstanceCount"]
        return count

    await asyncio.to_thread(eventually, lambda: instances_in_service() == INSTANCES)
    processes: set[int] = set()
    async with asyncio.timeout(30):  # the gateways hear of it a moment later
        while len(processes) < INSTANCES:
            again = await asyncio.gather(*(client.invoke(steady, b"") for _ in range(16)))
            assert Counter(reply.status for reply in again) == {200: 16}
            processes = set(_by_instance(again))
    assert victim not in processes, "another process has taken its place"
