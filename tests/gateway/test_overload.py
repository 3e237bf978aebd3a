"""More invocations than the instances take: the excess is refused at once, and those inside are not disturbed."""

import asyncio
import json

from tests.gateway.harness import Client, ContainerConnection, Gateway, Script, request, start_gateway

STREAM = "/endpoints/echo/invocations-response-stream"


def holding(let_go: asyncio.Event, inside: asyncio.Semaphore) -> Script:
    """A container that says of each invocation that it has it, and answers none before it is let go."""

    async def script(connection: ContainerConnection) -> None:
        while True:
            message = await connection.request()
            inside.release()
            await let_go.wait()
            await connection.reply(message.body)

    return script


class Crowd:
    """Invocations that are inside a container, each on a connection of its own."""

    def __init__(self, gateway: Gateway) -> None:
        self.let_go = asyncio.Event()
        self.inside = asyncio.Semaphore(0)
        self.clients: list[Client] = []
        self._gateway = gateway

    async def container(self) -> int:
        return (await self._gateway.container(holding(self.let_go, self.inside))).port

    async def join(self, path: str = "/endpoints/echo/invocations") -> None:
        client = await self._gateway.client()
        client.send(request(b"held", path))
        await self.inside.acquire()
        self.clients.append(client)

    async def replies(self) -> list[int]:
        self.let_go.set()
        return [(await client.reply()).status for client in self.clients]


async def test_the_excess_is_refused_at_once_and_the_rest_is_answered() -> None:
    async with start_gateway(max_concurrent_invocations_per_instance=2) as gateway:
        crowd = Crowd(gateway)
        gateway.route(await crowd.container())
        await crowd.join()
        await crowd.join()
        for path in ("/endpoints/echo/invocations", STREAM):
            refused = await gateway.call(request(b"too many", path))
            assert (refused.status, refused.error) == (503, "ServiceUnavailable")
            told = json.loads(refused.body)["Message"]
            assert "variant AllTraffic of endpoint echo" in told
            assert "2 from one gateway: max_concurrent_invocations_per_instance" in told
        assert await crowd.replies() == [200, 200]
        assert (await gateway.call(request(b"now there is room"))).status == 200


async def test_streams_count() -> None:
    async with start_gateway(max_concurrent_invocations_per_instance=1) as gateway:
        crowd = Crowd(gateway)
        gateway.route(await crowd.container())
        await crowd.join(STREAM)
        assert (await gateway.call(request(b"too many"))).status == 503
        assert await crowd.replies() == [200]


async def test_a_refusal_does_not_cost_the_connection() -> None:
    async with start_gateway(max_concurrent_invocations_per_instance=1) as gateway:
        crowd = Crowd(gateway)
        gateway.route(await crowd.container())
        await crowd.join()
        client = await gateway.client()
        assert (await client.call(request(b"too many"))).status == 503
        await crowd.replies()
        assert (await client.call(request(b"again"))).body == b"again"


async def test_a_client_that_goes_makes_room() -> None:
    async with start_gateway(max_concurrent_invocations_per_instance=1) as gateway:
        crowd = Crowd(gateway)
        gateway.route(await crowd.container())
        await crowd.join()
        crowd.clients.pop().close()
        crowd.let_go.set()
        while (await gateway.call(request(b"again"))).status == 503:
            pass  # until the gateway has seen it go


async def test_another_instance_takes_what_one_does_not() -> None:
    async with start_gateway(max_concurrent_invocations_per_instance=1) as gateway:
        crowd = Crowd(gateway)
        gateway.route(await crowd.container(), await crowd.container())
        await crowd.join()
        await crowd.join()
        assert (await gateway.call(request(b"too many"))).status == 503
        assert await crowd.replies() == [200, 200]


async def test_zero_is_any_number() -> None:
    async with start_gateway(max_concurrent_invocations_per_instance=0) as gateway:
        crowd = Crowd(gateway)
        gateway.route(await crowd.container())
        for _ in range(300):
            await crowd.join()
        assert await crowd.replies() == [200] * 300


async def test_clients_that_send_many_requests_at_once_hold_nobody_up() -> None:
    """What nobody has signed is refused while it is parsed, and one read holds ten thousand such requests."""
    async with start_gateway() as gateway:
        await gateway.echo()
        many = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 30_000
        crowd = [await gateway.client() for _ in range(20)]

        async def take(client: Client) -> None:
            client.send(many)
            replies = 0
            while replies < 5_000:
                replies += (await client.reader.read(2**20)).count(b"HTTP/1.1 403 ")

        taking = [asyncio.create_task(take(client)) for client in crowd]
        answered = 0
        while not all(task.done() for task in taking):
            assert (await gateway.call(request(b"one"))).body == b"one"
            answered += 1
        assert answered > 100  # if each read was answered in one go, there would be a few
        await asyncio.gather(*taking)


async def test_many_requests_at_once_are_answered_in_order_and_one_at_a_time() -> None:
    async with start_gateway() as gateway:
        container = await gateway.echo()
        client = await gateway.client()
        bodies = [b"%d" % number for number in range(300)]
        client.send(b"".join(request(body) for body in bodies))
        assert [(await client.reply()).body for _ in bodies] == bodies
        client.send(b"".join(request(body) for body in bodies[:9]) + request(b"x" * 90_000))
        assert [(await client.reply()).body for _ in range(10)] == [*bodies[:9], b"x" * 90_000]
        assert container.connections == 1
