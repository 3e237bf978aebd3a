"""Bodies whose signature is not verified yet: what they may take, whose turn it is, and what is given up."""

import asyncio
import dataclasses
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.config import Settings
from moorage.gateway.unverified import SLOWEST_SECONDS, Reservation, UnverifiedBodies
from moorage.heap import Heap
from tests.gateway import alone
from tests.gateway.harness import (
    Client,
    Gateway,
    echo,
    head,
    read_message,
    request,
    signed,
    start_gateway,
)

MIB = 1024 * 1024
INVOCATION = "/endpoints/echo/invocations"


class Body:
    """An owner that obeys."""

    def __init__(self, bodies: UnverifiedBodies, address: str, size: int, key_id: str = "AKIA") -> None:
        self._bodies = bodies
        self.told = False
        self.withdrawn = False
        self.reservation: Reservation = bodies.reserve(self, address, key_id, size)

    def memory_granted(self) -> None:
        assert not self.told
        self.told = True

    def memory_withdrawn(self) -> None:
        self.withdrawn = True
        self.release()

    def release(self) -> None:
        self._bodies.release(self.reservation)

    @property
    def granted(self) -> bool:
        return self.reservation.granted and not self.withdrawn


def bodies(limit: int = 100, limit_of_one: int = 0) -> UnverifiedBodies:
    return UnverifiedBodies(limit=limit, limit_of_one_address=limit_of_one)


# --- the rule -----------------------------------------------------------------------------------------


def test_what_fits_is_granted_at_once_and_the_rest_in_order() -> None:
    memory = bodies(100)
    first, second, third, fourth = (Body(memory, "a", size) for size in (60, 40, 50, 10))
    assert [each.granted for each in (first, second, third, fourth)] == [True, True, False, False]
    second.release()
    assert [third.granted, fourth.granted] == [False, False]  # nobody overtakes
    first.release()
    assert [third.told, fourth.told] == [True, True]
    assert not first.told  # it knew at once


def test_a_body_larger_than_a_limit_is_granted_alone() -> None:
    memory = bodies(100, 50)
    large = Body(memory, "a", 1000)
    assert large.granted
    other, same = Body(memory, "b", 1), Body(memory, "a", 1)
    assert not other.granted
    assert not same.granted
    large.release()
    assert other.granted
    assert same.granted


def test_the_limit_of_one_address_is_nothing_to_another() -> None:
    memory = bodies(100, 50)
    held, waiting, other = Body(memory, "a", 50), Body(memory, "a", 10), Body(memory, "b", 50)
    assert [held.granted, waiting.granted, other.granted] == [True, False, True]
    other.release()
    assert not waiting.granted
    held.release()
    assert waiting.granted


def test_addresses_take_turns() -> None:
    memory = bodies(10)
    first = Body(memory, "a", 10)
    crowd = [Body(memory, "a", 10) for _ in range(100)]
    honest = Body(memory, "b", 10)
    first.release()
    crowd[0].release()
    assert honest.granted


@pytest.mark.parametrize("limits", [(10, 0), (100, 10)], ids=["of all", "of the address"])
def test_the_keys_of_one_address_take_turns(limits: tuple[int, int]) -> None:
    memory = bodies(*limits)
    first = Body(memory, "a", 10)
    crowd = [Body(memory, "a", 10) for _ in range(100)]
    honest = Body(memory, "a", 10, "AKIAHONEST")
    first.release()
    crowd[0].release()
    assert honest.granted
    assert not crowd[1].granted
    honest.release()
    assert crowd[1].granted


def test_one_that_gave_up_waiting_is_passed_over() -> None:
    memory = bodies(10)
    first, impatient, last = (Body(memory, each, 10) for each in "abc")
    impatient.release()
    impatient.release()
    first.release()
    assert last.granted
    last.release()
    assert repr(memory) == "<UnverifiedBodies 0 bytes of 0, 0 waiting>"


def test_nothing_is_given_up_while_nobody_waits() -> None:
    memory = bodies(100, 50)
    idle = Body(memory, "a", 50)
    Body(memory, "b", 50)
    for now in range(1000):
        memory.look(float(now))
    assert idle.granted


def test_what_does_not_arrive_is_given_up_for_those_who_wait_for_it() -> None:
    memory = bodies(100, 50)
    idle, busy = Body(memory, "a", 25), Body(memory, "a", 25)
    bystander = Body(memory, "b", 50)  # of another address, whose memory is of no use to "a"
    for now in range(100):
        memory.look(float(now))
    waiting = Body(memory, "a", 25)
    memory.look(100.0)
    busy.reservation.received += 2  # in a second; 25 bytes within 20 seconds are 1.25
    memory.look(100.9)
    assert idle.granted  # it is judged by a whole second
    memory.look(101.0)
    assert idle.withdrawn
    assert waiting.told
    assert busy.granted
    assert bystander.granted


def test_a_body_that_has_all_but_a_few_bytes_is_given_up_too() -> None:
    memory = bodies(1000)
    nearly = Body(memory, "a", 1000)
    nearly.reservation.received = 990
    waiting = Body(memory, "b", 1000)
    memory.look(0.0)
    nearly.reservation.received += 9
    memory.look(1.0)
    assert nearly.withdrawn
    assert waiting.granted


def test_when_the_limit_of_all_is_reached_any_slow_body_is_given_up() -> None:
    memory = bodies(100, 50)
    slow = [Body(memory, each, 50) for each in "ab"]
    waiting = Body(memory, "c", 50)
    memory.look(0.0)
    memory.look(1.0)
    assert waiting.told
    assert sum(each.withdrawn for each in slow) == 1


def test_nobody_is_locked_out_for_longer_than_the_slowest_body_may_take() -> None:
    """Attackers of many addresses send just fast enough, and come again when they are done."""
    memory = bodies(200, 100)
    attackers = [Body(memory, str(number), 100) for number in range(20)]
    now = 0.0
    memory.look(now)
    honest = Body(memory, "honest", 100)
    while not honest.granted:
        now += 1.0
        for number, each in enumerate(attackers):
            if each.granted:
                each.reservation.received += 5
                if each.reservation.received >= 100:
                    each.release()
                    attackers[number] = Body(memory, str(number), 100)
        memory.look(now)
        assert now <= SLOWEST_SECONDS * 11  # two at a time, twenty before it
    assert honest.granted


@given(
    limit=st.integers(1, 50),
    limit_of_one=st.integers(0, 30),
    steps=st.lists(
        st.tuples(st.sampled_from("abcx"), st.integers(1, 40), st.sampled_from("kl")), max_size=60
    ),
)
def test_the_limits_hold_and_everybody_is_granted_in_the_end(
    limit: int, limit_of_one: int, steps: list[tuple[str, int, str]]
) -> None:
    memory = bodies(limit, limit_of_one)
    there: list[tuple[str, Body]] = []
    chance = random.Random(len(steps))

    def check() -> None:
        held = [(address, body.reservation.size) for address, body in there if body.granted]
        assert sum(size for _, size in held) <= limit or len(held) == 1
        for one in "abc":
            of_one = [size for address, size in held if address == one]
            assert sum(of_one) <= (limit_of_one or sum(of_one)) or len(of_one) == 1

    for address, size, key_id in steps:
        if address == "x":
            if there:
                there.pop(size % len(there))[1].release()
        else:
            there.append((address, Body(memory, address, size, key_id)))
        check()
    while there:
        granted = [each for each in there if each[1].granted]
        assert granted, "bodies wait, and nothing holds memory"
        done = chance.choice(granted)
        there.remove(done)
        done[1].release()
        check()
    assert repr(memory) == "<UnverifiedBodies 0 bytes of 0, 0 waiting>"


@pytest.mark.parametrize(
    ("peaks", "given_back"),
    [
        ([0, 0, 0, 0], 0),
        ([100, 0, 0, 0, 0, 0, 0], 1),
        ([100, 90, 80, 100, 90, 80], 0),  # it goes up and down
        ([100, 0, 0, 100, 0, 0, 100], 0),
        ([10, 0, 0, 0], 0),  # not worth it
        ([100, 50, 50, 50, 0, 0, 0], 2),
    ],
)
def test_memory_is_given_back_once_when_there_is_less_to_hold(peaks: list[int], given_back: int) -> None:
    trims: list[int] = []
    heap = Heap(lambda: trims.append(1))
    for peak in peaks:
        heap.give_back_after(peak * MIB)
    assert len(trims) == given_back


# --- connections --------------------------------------------------------------------------------------


def without(raw: bytes, left_out: int) -> tuple[bytes, bytes]:
    return raw[: len(raw) - left_out], raw[len(raw) - left_out :]


async def granted(gateway: Gateway, count: int) -> None:
    """Wait until so many bodies have memory."""
    async with asyncio.timeout(5):
        while f"of {count}," not in repr(gateway.bodies):
            await asyncio.sleep(0.01)


async def waiting(gateway: Gateway, count: int) -> None:
    async with asyncio.timeout(5):
        while f" {count} waiting" not in repr(gateway.bodies):
            await asyncio.sleep(0.01)


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    """Room for one body of 1 MB, and not for two."""
    async with start_gateway(max_body_bytes=MIB, max_response_bytes=MIB, max_unverified_bytes=MIB) as gateway:
        await gateway.echo()
        yield gateway
        assert repr(gateway.bodies) == "<UnverifiedBodies 0 bytes of 0, 0 waiting>"


LARGE = random.Random(1).randbytes(700_000)


async def half(gateway: Gateway, raw: bytes = b"") -> tuple[Client, bytes]:
    """A client that has sent all but the end of a large body; and that end."""
    client = await gateway.client()
    begun, rest = without(raw or request(LARGE), 10)
    client.send(begun)
    return client, rest


async def test_a_body_waits_for_memory_and_is_read_then(gateway: Gateway) -> None:
    first, rest = await half(gateway)
    await granted(gateway, 1)
    second = await gateway.client()
    second.send(request(LARGE))
    await waiting(gateway, 1)
    assert (await gateway.call(request(bytes(64 * 1024)))).status == 200  # a small one need not wait
    first.send(rest)
    assert (await first.reply()).body == LARGE
    assert (await second.reply()).body == LARGE


@pytest.mark.parametrize(
    "ending",
    ["abort", "wrong signature", "malformed", "too large"],
)
async def test_memory_is_released_however_a_request_ends(gateway: Gateway, ending: str) -> None:
    framing = {"Transfer-Encoding": "chunked"}
    raw = head(INVOCATION, {**signed(), **framing}) + b"ac000\r\n" + bytes(0xAC000) + b"\r\n"
    client = await gateway.client()
    client.send(raw)
    await granted(gateway, 1)
    if ending == "abort":
        client.close()
    else:
        client.send(
            {
                "wrong signature": b"0\r\n\r\n",
                "malformed": b"nonsense\r\n",
                "too large": b"ac000\r\n" + bytes(0xAC000),
            }[ending]
        )
        assert (await client.reply()).status == {"wrong signature": 403, "malformed": 400, "too large": 413}[
            ending
        ]
    assert (await gateway.call(request(LARGE))).status == 200


async def test_a_client_that_sends_nothing_more_is_told_to_come_again(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    idle, _ = await half(gateway)
    await granted(gateway, 1)
    assert (await gateway.call(request(LARGE))).body == LARGE
    refused = await idle.reply()
    assert (refused.status, refused.error) == (503, "ServiceUnavailable")
    assert refused.headers["retry-after"] == "1"
    assert "came too slowly while others waited" in json.loads(refused.body)["Message"]
    async with asyncio.timeout(5):
        while "1 request bodies were given up" not in caplog.text:
            await asyncio.sleep(0.05)
    caplog.clear()


async def test_one_that_waits_for_too_long_is_told_to_come_again(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moorage.gateway.client_connection.LONGEST_WAIT_SECONDS", 0.3)
    first, rest = await half(gateway)
    await granted(gateway, 1)
    refused = await gateway.call(request(LARGE))
    assert (refused.status, refused.error) == (503, "ServiceUnavailable")
    assert "max_unverified_bytes" in json.loads(refused.body)["Message"]
    first.send(rest)
    assert (await first.reply()).status == 200


def with_another_signature(raw: bytes) -> bytes:
    """What somebody can make who does not have the secret."""
    at = raw.index(b"Signature=") + len(b"Signature=")
    return raw[:at] + b"0" * 64 + raw[at + 64 :]


@pytest.mark.parametrize("declared", [hashlib.sha256(LARGE).hexdigest(), "UNSIGNED-PAYLOAD"])
async def test_a_client_that_declares_the_hash_is_verified_by_its_head(declared: str) -> None:
    async with start_gateway(
        max_body_bytes=MIB, max_response_bytes=MIB, max_unverified_bytes=MIB, allow_unsigned_payload=True
    ) as gateway:
        await gateway.echo()
        raw = request(LARGE, headers={"X-Amz-Content-SHA256": declared})
        others = [await half(gateway, raw) for _ in range(3)]  # more than there would be memory for
        refused, _ = await half(gateway, with_another_signature(raw))
        reply = await refused.reply()  # though its body is not complete
        assert (reply.status, reply.error) == (403, "InvalidSignatureException")
        for client, rest in others:
            assert "0 bytes of 0" in repr(gateway.bodies)
            client.send(rest)
            assert (await client.reply()).body == LARGE


async def test_a_declared_hash_is_compared_with_the_body(gateway: Gateway) -> None:
    raw = request(LARGE, headers={"X-Amz-Content-SHA256": hashlib.sha256(LARGE).hexdigest()})
    client, rest = await half(gateway, raw)
    client.send(rest[:-1] + bytes([rest[-1] ^ 1]))
    reply = await client.reply()
    assert (reply.status, reply.error) == (403, "InvalidSignatureException")


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {"X-Amz-Target": "SageMaker.ListModels"}),
        ("/endpoints/echo/async-invocations", {}),
        ("/endpoints/echo/invocations-response-stream", {}),
    ],
)
async def test_every_body_that_is_kept_counts(path: str, headers: dict[str, str]) -> None:
    async with start_gateway(max_body_bytes=MIB, max_unverified_bytes=MIB) as gateway:
        client, _ = await half(gateway, request(bytes(120_000), path, headers=headers))
        await granted(gateway, 1)
        assert "<UnverifiedBodies 120000 bytes" in repr(gateway.bodies)
        await client.closed()
        await granted(gateway, 0)


async def test_a_wrong_signature_for_s3_is_refused_before_its_body() -> None:
    async with start_gateway(max_unverified_bytes=MIB) as gateway:
        raw = request(LARGE, "/bucket/key", method="PUT", service="s3")
        client, _ = await half(gateway, with_another_signature(raw))
        assert (await client.reply()).status == 403
        assert "0 bytes of 0" in repr(gateway.bodies)


# --- the attack ---------------------------------------------------------------------------------------

ATTACKERS = 150
BODY = 6 * MIB
LIMIT = 64 * MIB
LIMIT_OF_ONE = 32 * MIB


class Alone:
    """A gateway process, as seen from outside."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self._pid = pid

    def resident_bytes(self) -> int:
        pages = Path(f"/proc/{self._pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    async def call(self, address: str, body: bytes) -> bytes:
        """What one invocation from a local address is answered with."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0))
        try:
            writer.write(request(body))
            reply = await read_message(reader)
            assert reply.status == 200, reply
            return reply.body
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@contextmanager
def gateway_process(container_port: int, **settings: object) -> Iterator[Alone]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.set_inheritable(True)
    options = json.dumps(dataclasses.asdict(Settings()) | settings, default=str)
    command = [sys.executable, "-m", alone.__name__, options, str(listener.fileno()), str(container_port)]
    process = subprocess.Popen(command, pass_fds=[listener.fileno()], cwd=Path(__file__).parents[2])
    port = listener.getsockname()[1]
    listener.close()
    try:
        yield Alone(port, process.pid)
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def attack(port: int) -> AsyncIterator[None]:
    """Connections with a known key id and all of a body but ten bytes. Each connects again when it is cut."""
    begun = memoryview(with_another_signature(request(bytes(BODY))))[:-10]

    async def hold() -> None:
        while True:
            with suppress(ConnectionError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(begun)
                    await reader.read()
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.1)

    tasks = [asyncio.create_task(hold()) for _ in range(ATTACKERS)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_bodies_without_a_secret_take_bounded_memory_and_nobody_elses_time(gateway: Gateway) -> None:
    container = await gateway.container(echo)
    honest = random.Random(2).randbytes(25 * MIB)
    with gateway_process(
        container.port,
        max_body_bytes=25 * MIB,
        max_response_bytes=25 * MIB,
        max_unverified_bytes=LIMIT,
        max_unverified_bytes_per_client=LIMIT_OF_ONE,
    ) as alone:
        assert await alone.call("127.0.0.2", b"small") == b"small"
        assert await alone.call("127.0.0.2", honest) == honest
        before = alone.resident_bytes()
        highest = before
        async with attack(alone.port):
            for _ in range(3):
                for body in (honest[: 6 * MIB], honest, b"small"):
                    assert await alone.call("127.0.0.2", body) == body
                highest = max(highest, alone.resident_bytes())
            assert await alone.call("127.0.0.1", b"small") == b"small"  # from the same address, too
        # The honest client's body and reply take memory as well, and so does what is read of each body that waits.
        assert highest - before < LIMIT + ATTACKERS * 256 * 1024
        async with asyncio.timeout(20):
            while alone.resident_bytes() > before + 16 * MIB:
                await asyncio.sleep(0.1)
