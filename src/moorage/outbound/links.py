"""The namespace that instances are linked to, and the links. Needs root.

All of it happens in one thread, which stays in that namespace: a namespace is a thread's, not a process's.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.nftables.main import NFTables

from moorage import network_namespace
from moorage.outbound.policy import DNS_PORT, MAX_INSTANCES, SERVER_ADDRESS, address_of

_INSIDE: Final = "eth0"
_TABLE: Final = "moorage"
_REDIRECTS: Final = "prerouting"
_FORWARDS: Final = "forward"
_DROP: Final = 0
_ACCEPT: Final = 1
_ATTEMPTS: Final = 50
"""A link of a process that died takes a moment to go."""
_T = TypeVar("_T")


class Links:
    """`listener` takes every TCP connection and `resolver` every name lookup of all instances that are attached."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="links")
        self._numbers: dict[str, int] = {}
        self._next = 0
        self._outer: IPRoute
        self.listener: socket.socket
        self.resolver: socket.socket

    def __repr__(self) -> str:
        return f"<Links instances={len(self._numbers)}>"

    async def open(self) -> None:
        """Make the namespace.

        Raises:
            OSError: it cannot be had here.
        """
        try:
            await self._run(self._open)
        except NetlinkError as error:
            raise OSError(error.code, str(error)) from error

    async def attach(self, network: str, descriptor: int | None = None) -> str:
        """Link the network namespace of an instance; returns its address. Again is allowed.

        `network` is what `detach` is told; without a descriptor of the namespace it names it too, as
        `network_namespace.reference` does.

        Raises:
            OSError: the instance is gone, or the kernel refuses.
        """
        own = network_namespace.open_namespace(network) if descriptor is None else os.dup(descriptor)
        try:
            return await self._run(lambda: self._attach(network, own))
        finally:
            os.close(own)

    def detach(self, network: str) -> None:
        """Its number may be another's. The link itself goes with the instance's namespace."""
        self._numbers.pop(network, None)

    async def new_network(self) -> int:
        """A descriptor of a new network namespace, which lasts until it is closed and all processes in it are
        gone."""
        return await self._run(_new_network)

    async def socket_in(self, descriptor: int, family: int) -> socket.socket:
        """A new non-blocking TCP socket in that namespace."""
        return await self._run(lambda: _socket_in(descriptor, family))

    async def _run(self, step: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, step)

    # --- in the thread --------------------------------------------------------------------------------

    def _open(self) -> None:
        network_namespace.enter_new_namespace()
        self._outer = IPRoute()
        self.listener = socket.create_server(("0.0.0.0", 0), backlog=4096)  # noqa: S104 - of that namespace
        self.listener.setblocking(False)
        self.resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.resolver.bind(("0.0.0.0", DNS_PORT))  # noqa: S104
        _redirect(self.listener.getsockname()[1])

    def _attach(self, network: str, descriptor: int) -> str:
        if network in self._numbers:
            return address_of(self._numbers[network])
        number = self._free_number()
        address, outside = address_of(number), f"i{number}"
        try:
            index = self._link(outside, address, descriptor)
            try:
                with network_namespace.entered(descriptor):
                    _configure(address)
            except BaseException:
                self._outer.link("del", index=index)
                raise
        except NetlinkError as error:
            raise OSError(error.code, str(error)) from error
        self._numbers[network] = number
        return address

    def _free_number(self) -> int:
        """Not one that was just in use: its link may still be going."""
        taken = set(self._numbers.values())
        for _ in range(MAX_INSTANCES):
            number, self._next = self._next, (self._next + 1) % MAX_INSTANCES
            if number not in taken:
                return number
        raise OSError("there is no address for another instance")

    def _link(self, outside: str, address: str, descriptor: int) -> int:
        """The index of its end in our namespace."""
        for attempt in range(_ATTEMPTS):
            try:
                peer = {"ifname": _INSIDE, "net_ns_fd": descriptor}
                self._outer.link("add", ifname=outside, kind="veth", peer=peer)
                break
            except NetlinkError:
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(0.02)
        index = self._outer.link_lookup(ifname=outside)[0]
        self._outer.addr("add", index=index, address=SERVER_ADDRESS, prefixlen=32)
        self._outer.link("set", index=index, state="up")
        self._outer.route("add", dst=f"{address}/32", oif=index)
        return int(index)


def _new_network() -> int:
    with network_namespace.new_namespace():
        return network_namespace.namespace_of_thread()


def _socket_in(descriptor: int, family: int) -> socket.socket:
    with network_namespace.entered(descriptor):
        return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


def _configure(address: str) -> None:
    """The instance's end of its link: everything goes through it."""
    inner = IPRoute()
    try:
        index = inner.link_lookup(ifname=_INSIDE)[0]
        inner.addr("add", index=index, address=address, prefixlen=32)
        inner.link("set", index=index, state="up")
        inner.route("add", dst=f"{SERVER_ADDRESS}/32", oif=index, scope="link")
        inner.route("add", dst="0.0.0.0/0", gateway=SERVER_ADDRESS)
    finally:
        inner.close()


def _redirect(port: int) -> None:
    """Every TCP connection to our listener, every lookup to our resolver, nothing from one instance to another."""
    nft = NFTables(nfgen_family=socket.AF_INET)
    try:
        nft.table("add", name=_TABLE)
        nft.chain("add", table=_TABLE, name=_REDIRECTS, hook="prerouting", type="nat", policy=_ACCEPT)
        # A new namespace takes over the machine's ip_forward, which is 1 beside a container engine.
        nft.chain("add", table=_TABLE, name=_FORWARDS, hook="forward", type="filter", policy=_DROP)
        lookups = [_load_payload(offset=2, length=2), _equals(DNS_PORT.to_bytes(2, "big"))]
        for rule in (
            [_load_protocol(), _equals(bytes([socket.IPPROTO_TCP])), *_redirect_to(port)],
            [_load_protocol(), _equals(bytes([socket.IPPROTO_UDP])), *lookups, *_redirect_to(DNS_PORT)],
        ):
            nft.rule("add", table=_TABLE, chain=_REDIRECTS, expressions=[rule])
    finally:
        nft.close()


# Expressions of nf_tables, as netlink has them: each works on register 1.


def _expression(name: str, **values: Any) -> dict[str, Any]:
    data = [(f"NFTA_{name.upper()}_{key.upper()}", value) for key, value in values.items()]
    return {"attrs": [("NFTA_EXPR_NAME", name), ("NFTA_EXPR_DATA", {"attrs": data})]}


def _load_protocol() -> dict[str, Any]:
    return _expression("meta", key=16, dreg=1)  # NFT_META_L4PROTO


def _load_payload(*, offset: int, length: int) -> dict[str, Any]:
    return _expression("payload", dreg=1, base=2, offset=offset, len=length)  # of the transport header


def _equals(value: bytes) -> dict[str, Any]:
    return _expression("cmp", sreg=1, op=0, data={"attrs": [("NFTA_DATA_VALUE", value)]})


def _redirect_to(port: int) -> list[dict[str, Any]]:
    value = {"attrs": [("NFTA_DATA_VALUE", port.to_bytes(2, "big"))]}
    flags = {"NF_NAT_RANGE_PROTO_SPECIFIED"}
    return [_expression("immediate", dreg=1, data=value), _expression("redir", reg_proto_min=1, flags=flags)]
