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
