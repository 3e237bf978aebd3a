"""Connections to what stands behind the gateway, and the pool that keeps them."""

import asyncio

import pytest

from moorage.upstream import Pool, UpstreamConnection, tcp

PATIENCE = 2.0


class HoldingBack:
    """An exchange that stops the reply while its last bytes come, as for a client that does not read."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connected(self, connection: UpstreamConnection) -> None:
        self.connection = connection
        connection.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    def not_connected(self, error: BaseException) -> None:
        self.done.set_exception(error)

    def reply_head(self, status: int, headers: dict[bytes, bytes]) -> None:
        assert status == 200

    def reply_data(self, chunk: bytes) -> None:
        self.connection.pause_reading()

    def reply_end(self) -> None:
        self.done.set_result(None)

    def reply_broken(self, *, untouched: bool, reason: str) -> None:
        self.done.set_exception(OSError(reason))

    def reply_failed(self) -> None:
        """Nothing here raises."""

    def pause_request(self) -> None:
        """The request is short."""

    resume_request = pause_request


async def test_a_connection_whose_reply_was_held_back_to_its_end_reads_the_next() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        await reader.read()
        writer.close()

    loop = asyncio.get_running_loop()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        pool = Pool(tcp("127.0.0.1", port), loop=loop, timeout_seconds=PATIENCE, idle_seconds=60)
        for _ in range(2):
            exchange = HoldingBack()
            pool.start(exchange)
            try:
                await asyncio.wait_for(exchange.done, PATIENCE)
            except TimeoutError:
                exchange.connection.drop()
                raise
        pool.close()


async def test_an_exchange_that_cannot_handle_the_end_of_its_reply_is_told_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Else it would wait forever, and so would its client."""

    class Faulty(HoldingBack):
        def reply_data(self, chunk: bytes) -> None:
            """Nothing is held back."""

        def reply_end(self) -> None:
            raise ZeroDivisionError

        def reply_failed(self) -> None:
            self.done.set_result(None)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        pool = Pool(
            tcp("127.0.0.1", port),
            loop=asyncio.get_running_loop(),
            timeout_seconds=PATIENCE,
            idle_seconds=60,
        )
        exchange = Faulty()
        pool.start(exchange)
        await asyncio.wait_for(exchange.done, PATIENCE)
        pool.close()
    assert [record.getMessage() for record in caplog.records] == ["the end of a reply could not be handled"]
    caplog.clear()
