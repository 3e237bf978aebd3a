"""What an instance with a network of its own can call: the server and the outside, and nobody's loopback
interface."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage import network_namespace
from moorage.launchers.base import InstanceStatus
from moorage.launchers.isolation import Isolation, Network
from moorage.outbound import policy
from moorage.outbound.client import OutboundClient
from moorage.outbound.keeper_client import KeeperClient
from moorage.outbound.policy import CREDENTIALS_ADDRESS, SERVER_ADDRESS, Policy

from .containers import leader_of, log_of, process_launcher, reaches, spec_for

S = InstanceStatus
NO_NETWORK = network_namespace.why_unusable()
needs_network = pytest.mark.skipif(NO_NETWORK is not None, reason=str(NO_NETWORK))


# --- the rules -----------------------------------------------------------------------------------------

RULES = Policy(
    server=("127.0.0.1", 8080), server_port=8080, plain=("127.0.0.1", 8443), name_servers=("10.0.0.2",)
)


@pytest.mark.parametrize(
    ("called", "reached"),
    [
        ((SERVER_ADDRESS, 8080), ("127.0.0.1", 8080)),
        ((SERVER_ADDRESS, 8081), None),
        ((SERVER_ADDRESS, 8443), ("127.0.0.1", 8443)),
        ((CREDENTIALS_ADDRESS, 80), ("127.0.0.1", 8443)),
        ((CREDENTIALS_ADDRESS, 8080), None),
        (("169.254.170.3", 80), None),
        ((SERVER_ADDRESS, 53), ("10.0.0.2", 53)),
        (("93.184.216.34", 443), ("93.184.216.34", 443)),
        (("10.1.2.3", 5432), ("10.1.2.3", 5432)),
        (("127.0.0.1", 8080), None),
        (("127.9.9.9", 22), None),
        (("0.0.0.0", 8080), None),  # noqa: S104
        (("169.254.169.254", 80), None),
        (("168.63.129.16", 80), None),
        (("100.100.100.200", 80), None),
        (("198.18.0.7", 8080), None),
        (("198.19.255.255", 8080), None),
        (("224.0.0.1", 80), None),
        (("255.255.255.255", 80), None),
    ],
)
def test_where_a_call_goes(called: tuple[str, int], reached: tuple[str, int] | None) -> None:
    assert RULES.destination(*called) == reached


@pytest.mark.parametrize(
    ("own", "peer", "is_the_machine"),
    [
        (("10.0.0.5", 40000), ("10.0.0.5", 5432), True),  # a service of the machine, by its own address
        (("10.0.0.5", 40000), ("10.0.0.5", 8080), False),  # the server
        (("127.18.0.2", 40000), ("127.0.0.1", 8080), False),
        (("10.0.0.5", 40000), ("10.0.0.6", 5432), False),
    ],
)
def test_the_machines_own_services_are_not_the_outside(
    own: tuple[str, int], peer: tuple[str, int], is_the_machine: bool
) -> None:
    assert RULES.reaches_machine(own, peer) is is_the_machine


@given(st.integers(0, policy.MAX_INSTANCES - 1), st.integers(0, policy.MAX_INSTANCES - 1))
def test_no_two_instances_have_one_address_and_none_reaches_another(first: int, second: int) -> None:
    addresses = policy.address_of(first), policy.address_of(second)
    assert (addresses[0] == addresses[1]) is (first == second)
    assert SERVER_ADDRESS not in addresses
    assert RULES.destination(addresses[0], 8080) is None


def test_there_are_no_more_addresses_than_that() -> None:
    with pytest.raises(ValueError, match="there is no address"):
        policy.address_of(policy.MAX_INSTANCES)


def test_name_servers_are_the_machines() -> None:
    machines = "# a comment\nsearch example.com\nnameserver 10.0.0.2\nnameserver fd00::1\n\noptions ndots:2\n"
    assert policy.name_servers(machines) == ("10.0.0.2",)
    assert policy.resolv_conf(machines).splitlines() == [
        f"nameserver {SERVER_ADDRESS}",
        "# a comment",
        "search example.com",
        "options ndots:2",
    ]


# --- for real ------------------------------------------------------------------------------------------

PROCESS = """
import asyncio, json, signal, sys
from pathlib import Path
import uvloop
from moorage.outbound.links import Links
from moorage.outbound.policy import Policy
from moorage.outbound.relay import Relay
from moorage.outbound.service import serve

class Anywhere(Policy):
    # The outside is this machine's loopback interface here: tests call nobody else.
    def destination(self, host, port):
        decided = super().destination(host, port)
        return ("127.0.0.1", port) if decided == (host, port) else decided

    def reaches_machine(self, own, peer):
        return super().reaches_machine(own, peer) and peer[0] != "127.0.0.1"

async def main():
    server = ("127.0.0.1", int(sys.argv[2]))
    rules = Anywhere(server=server, server_port=8080, plain=("127.0.0.1", 1), name_servers=("127.0.0.1",))
    links = Links()
    await links.open()
    relay = Relay(lambda: rules)
    await relay.serve(links.listener, links.resolver)
    await serve(links, Path(sys.argv[1]))
    print("ready", flush=True)
    await asyncio.Event().wait()

uvloop.run(main())
"""


@contextmanager
def outbound_process(
    path: Path, server_port: int, *, program: str = PROCESS
) -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path), str(server_port)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def instance() -> Iterator[str]:
    """A process in a network namespace of its own, as an instance is; its network."""
    with network_namespace.new_namespace():
        process = subprocess.Popen(["sleep", "1000"])
    try:
        yield network_namespace.reference(process.pid)
    finally:
        process.kill()
        process.wait()


async def called(network: str, host: str, port: int, request: bytes = b"hello", seconds: float = 10) -> bytes:
    """What an instance reads when it calls there, writes the request, and reads to the end."""
    loop = asyncio.get_running_loop()
    with await network_namespace.open_socket(network) as sock:
        async with asyncio.timeout(seconds):
            await loop.sock_connect(sock, (host, port))
            await loop.sock_sendall(sock, request)
            sock.shutdown(socket.SHUT_WR)
            received = b""
            while data := await loop.sock_recv(sock, 65536):
                received += data
    return received


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"echo:" + await reader.read())
    writer.close()


@pytest.fixture
async def outside() -> AsyncIterator[int]:
    """A server on the machine's loopback interface; its port."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@needs_network
async def test_an_instance_reaches_the_server_and_the_outside_and_nothing_else(
    tmp_path: Path, outside: int
) -> None:
    path = tmp_path / "o.sock"
    client = OutboundClient(path)
    try:
        with outbound_process(path, outside), instance() as first, instance() as second:
            assert await client.attach(first) == policy.address_of(0)
            assert await client.attach(second) == policy.address_of(1)
            assert await called(first, SERVER_ADDRESS, 8080) == b"echo:hello"
            assert await called(second, "192.0.2.1", outside) == b"echo:hello"
            for _ in range(50):  # what is sent at once may be there before the connection that it is for
                assert await called(first, "192.0.2.1", outside) == b"echo:hello"
            large = os.urandom(5_000_000)
            assert await called(first, "192.0.2.1", outside, large, 30) == b"echo:" + large
            for host, port in (
                (SERVER_ADDRESS, outside),
                (policy.address_of(1), outside),
                ("169.254.169.254", outside),
            ):
                with pytest.raises((OSError, TimeoutError)):
                    assert await called(first, host, port, seconds=2) == b""
            with pytest.raises(ConnectionRefusedError):  # its own loopback interface, not the machine's
                await called(first, "127.0.0.1", outside)
    finally:
        await client.close()


@needs_network
async def test_the_server_sees_another_address_for_each_instance(tmp_path: Path) -> None:
    """Its limits of connections are by address: none of one instance is another's, or a local caller's."""

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(writer.get_extra_info("peername")[0].encode())
        writer.close()

    server = await asyncio.start_server(tell, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    path = tmp_path / "o.sock"
    client = OutboundClient(path)
    try:
        with outbound_process(path, port), instance() as first, instance() as second:
            for network in (first, second):
                await client.attach(network)
            assert await called(first, SERVER_ADDRESS, 8080) == b"127.18.0.2"
            assert await called(second, SERVER_ADDRESS, 8080) == b"127.18.0.3"
    finally:
        await client.close()
        server.close()


FORWARDING = PROCESS.replace(
    "await links.open()\n",
    "await links.open()\n    await links._run(lambda: Path('/proc/sys/net/ipv4/ip_forward').write_text('1'))\n",
)


@needs_network
async def test_datagrams_do_not_pass_between_instances_on_a_machine_that_forwards(tmp_path: Path) -> None:
    """A container engine sets the machine's ip_forward, and new namespaces take that over."""
    path = tmp_path / "o.sock"
    client = OutboundClient(path)
    loop = asyncio.get_running_loop()
    try:
        with outbound_process(path, 1, program=FORWARDING), instance() as first, instance() as second:
            addresses = [await client.attach(network) for network in (first, second)]
            with (
                network_namespace.socket_in(first, kind=socket.SOCK_DGRAM) as sender,
                network_namespace.socket_in(second, kind=socket.SOCK_DGRAM) as receiver,
            ):
                receiver.bind(("", 5555))
                for _ in range(5):
                    await loop.sock_sendto(sender, b"hello", (addresses[1], 5555))
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await loop.sock_recv(receiver, 100)
    finally:
        await client.close()


@needs_network
async def test_a_name_is_looked_up_at_the_machines_name_server(tmp_path: Path) -> None:
    class NameServer(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.transport.sendto(b"answer to " + data, addr)

    loop = asyncio.get_running_loop()
    try:
        server, _ = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 53))
    except OSError as error:
        pytest.skip(f"no name server can be played here: {error}")
    path = tmp_path / "o.sock"
    client = OutboundClient(path)
    try:
        with outbound_process(path, 1), instance() as network:
            await client.attach(network)
            for asked in (SERVER_ADDRESS, "192.0.2.53"):
                with network_namespace.socket_in(network, kind=socket.SOCK_DGRAM) as sock:
                    await loop.sock_connect(sock, (asked, 53))
                    await loop.sock_sendall(sock, b"a question")
                    async with asyncio.timeout(10):
                        assert await loop.sock_recv(sock, 1000) == b"answer to a question"
    finally:
        await client.close()
        server.close()


@needs_network
async def test_links_come_back_when_the_process_does(tmp_path: Path, outside: int) -> None:
    path = tmp_path / "o.sock"
    client = OutboundClient(path)
    try:
        with instance() as network:
            with outbound_process(path, outside):
                await client.attach(network)
                assert await called(network, SERVER_ADDRESS, 8080) == b"echo:hello"
            with outbound_process(path, outside):
                async with asyncio.timeout(20):
                    while True:
                        try:
                            assert await called(network, SERVER_ADDRESS, 8080, seconds=5) == b"echo:hello"
                            break
                        except (OSError, TimeoutError):
                            await asyncio.sleep(0.05)
    finally:
        await client.close()


@needs_network
async def test_nothing_is_left_of_it_on_the_machine(tmp_path: Path, outside: int) -> None:
    before = interfaces()
    path = tmp_path / "o.sock"
    client = OutboundClient(path)
    try:
        with outbound_process(path, outside), instance() as network:
            await client.attach(network)
            assert interfaces() == before
    finally:
        await client.close()
    assert interfaces() == before


@needs_network
async def test_an_instance_that_is_gone_cannot_be_linked(tmp_path: Path, outside: int) -> None:
    path = tmp_path / "o.sock"
    client = OutboundClient(path)
    with instance() as network:
        pass
    try:
        with outbound_process(path, outside), pytest.raises(OSError, match="gone"):
            await client.attach(network)
    finally:
        await client.close()


def interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


async def test_a_process_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moorage.outbound.client._PATIENCE_SECONDS", 0.05)
    client = OutboundClient(tmp_path / "o.sock")
    try:
        with pytest.raises(OSError, match="does not answer"):
            await client.attach("1/1")
    finally:
        await client.close()


# --- kept by another process, as for a server that is not root -------------------------------------------

KEEPER = """
import asyncio, sys
from pathlib import Path
from moorage import network_namespace
network_namespace.enter_new_user_namespace()
from moorage.outbound.keeper import Keeper
from moorage.outbound.links import Links
from moorage.outbound.policy import Policy
from moorage.outbound.relay import Relay

async def main():
    links = Links()
    await links.open()
    rules = Policy(server=("127.0.0.1", int(sys.argv[2])), server_port=8080, plain=("127.0.0.1", int(sys.argv[2])))
    relay = Relay(lambda: rules)
    await relay.serve(links.listener, links.resolver)
    keeper = Keeper(links)
    keeper.listen(Path(sys.argv[1]))
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
NOT_KEPT = subprocess.run(
    [sys.executable, "-c", KEEPER.partition("from moorage.outbound.keeper")[0]],
    capture_output=True,
    text=True,
    check=False,
).stderr.strip()
needs_keeper = pytest.mark.skipif(bool(NOT_KEPT), reason=NOT_KEPT[-200:])


@needs_keeper
@pytest.mark.parametrize("network", [Network.OUTBOUND, Network.ISOLATED])
async def test_instances_have_networks_that_another_process_keeps(
    tmp_path: Path, outside: int, network: Network
) -> None:
    path = tmp_path / "k.sock"
    launcher = process_launcher(
        tmp_path, isolation=Isolation(network=network, keeps_networks=True), keeper=KeeperClient(path)
    )
    try:
        with outbound_process(path, outside, program=KEEPER):
            specs = [spec_for(tmp_path) for _ in range(2)]
            for spec in specs:
                await launcher.launch(spec)
            states = [await reaches(launcher, spec.instance_id, S.IN_SERVICE) for spec in specs]
            assert [state.port for state in states] == [8080, 8080]
            assert len({state.network for state in states}) == 2
            pids = [leader_of(spec, launcher.marker) for spec in specs]
            namespaces = {Path(f"/proc/{pid}/ns/net").readlink() for pid in [*pids, os.getpid()]}
            assert len(namespaces) == 3
            for pid in pids:  # none in the namespace of the keeper, root's containers neither
                assert "CapEff:\t0000000000000000\n" in Path(f"/proc/{pid}/status").read_text()
            for state in states:
                sock = await network_namespace.open_socket(state.network)
                with sock:
                    loop = asyncio.get_running_loop()
                    await loop.sock_connect(sock, ("127.0.0.1", 8080))
                    await loop.sock_sendall(sock, b"GET /ping HTTP/1.0\r\n\r\n")
                    assert (await loop.sock_recv(sock, 100)).startswith(b"HTTP/1.0 200")
            if network is Network.OUTBOUND:
                assert await called(states[0].network, SERVER_ADDRESS, 8080) == b"echo:hello"
            else:
                with pytest.raises(OSError, match="unreachable"):
                    await called(states[0].network, SERVER_ADDRESS, 8080)
            await launcher.stop(specs[0].instance_id)
            with pytest.raises(ConnectionRefusedError, match="gone"):
                await network_namespace.open_socket(states[0].network)
    finally:
        await launcher.close(hurry=True)


@needs_keeper
async def test_a_network_that_cannot_be_linked_is_not_kept(tmp_path: Path, outside: int) -> None:
    path = tmp_path / "k.sock"
    full = KEEPER.replace(
        "async def main", "from moorage.outbound import links\nlinks.MAX_INSTANCES = 0\nasync def main"
    )
    with outbound_process(path, outside, program=full) as process:

        def kept() -> int:
            found = [os.readlink(each) for each in Path(f"/proc/{process.pid}/fd").iterdir()]  # noqa: PTH115
            return sum(target.startswith("net:[") for target in found)

        before = kept()
        for number in range(3):
            with pytest.raises(OSError, match="no address for another instance"):
                await KeeperClient(path).new(f"i-{number}", linked=True)
        assert kept() == before


@needs_keeper
async def test_instances_are_started_anew_when_their_keeper_has_died(tmp_path: Path, outside: int) -> None:
    path = tmp_path / "k.sock"
    launcher = process_launcher(
        tmp_path,
        isolation=Isolation(network=Network.ISOLATED, keeps_networks=True),
        keeper=KeeperClient(path),
    )
    spec = spec_for(tmp_path)
    try:
        with outbound_process(path, outside, program=KEEPER):
            await launcher.launch(spec)
            await reaches(launcher, spec.instance_id, S.IN_SERVICE)
        with outbound_process(path, outside, program=KEEPER):
            state = await reaches(launcher, spec.instance_id, S.IN_SERVICE, generation=2)
            assert state.restarts == 1
            assert "lost its network" in log_of(spec)
    finally:
        await launcher.close(hurry=True)


async def test_a_keeper_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moorage.outbound.keeper_client._PATIENCE_SECONDS", 0.05)
    launcher = process_launcher(
        tmp_path,
        isolation=Isolation(network=Network.ISOLATED, keeps_networks=True),
        keeper=KeeperClient(tmp_path / "k.sock"),
    )
    spec = spec_for(tmp_path)
    try:
        await launcher.launch(spec)
        state = await reaches(launcher, spec.instance_id, S.FAILED)
        assert "could not be started: it has no network" in str(state.failure)
    finally:
        await launcher.close(hurry=True)
