"""Which address an instance has, and where its calls may go. Decisions only."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SERVER_ADDRESS: Final = "198.18.0.1"
"""How instances call the server: the other end of each one's link. The network is the one that RFC 2544 sets aside
for tests of devices, so no machine that an instance would call is in it."""
CREDENTIALS_ADDRESS: Final = "169.254.170.2"
"""Where the SDKs of AWS ask for a container's credentials, at port 80."""
_NETWORK: Final = ipaddress.ip_network("198.18.0.0/15")
_FIRST: Final = 2
MAX_INSTANCES: Final = _NETWORK.num_addresses - _FIRST - 1
DNS_PORT: Final = 53

Address = tuple[str, int]

_REFUSED: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "127.0.0.0/8",  # the machine's own services
        # Clouds' metadata services, which hand out the machine's credentials: of most of them, of Azure, of Alibaba.
        "169.254.0.0/16",
        "168.63.129.16/32",
        "100.100.100.200/32",
        "198.18.0.0/15",  # other instances
        "224.0.0.0/3",  # to many
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """`server` is where the server listens, by its port at `SERVER_ADDRESS`, and `plain` where it does without TLS;
    `name_servers` are the machine's."""

    server: Address
    server_port: int
    plain: Address
    name_servers: Sequence[str] = ()

    def destination(self, host: str, port: int) -> Address | None:
        """Where a call to this address is connected to; None if it may not be made."""
        if host == SERVER_ADDRESS:
            if port == self.server_port:
                return self.server
            if port == self.plain[1]:
                return self.plain
            if port == DNS_PORT and self.name_servers:
                return self.name_servers[0], DNS_PORT
            return None
        if host == CREDENTIALS_ADDRESS and port == 80:
            return self.plain
        address = ipaddress.ip_address(host)
        return None if any(address in network for network in _REFUSED) else (host, port)

    def reaches_machine(self, own: Address, peer: Address) -> bool:
        """Whether a connection between these two ends leads to a service of the machine itself, by whatever address,
        that is not the server."""
        return own[0] == peer[0] and peer != self.server and peer[1] != self.server_port


def address_of(number: int) -> str:
    """The address of the instance with that number, from 0.

    Raises:
        ValueError: there are no more than `MAX_INSTANCES`.
    """
    if not 0 <= number < MAX_INSTANCES:
        raise ValueError(f"there is no address for instance number {number}")
    return str(_NETWORK[number + _FIRST])


def source_of(instance: str) -> str:
    """The machine's loopback address from which an instance's calls reach the server, by the instance's own address.

    The server counts connections, and what is not verified yet, by the caller's address: from one address for all
    instances, one of them would use up what the others, and callers on this machine, may have.
    """
    return f"127.{instance.partition('.')[2]}"


def name_servers(resolv_conf: str) -> tuple[str, ...]:
    """The name servers in a `resolv.conf` that can be asked over IPv4."""
    words = (line.split() for line in resolv_conf.splitlines())
    found = [each[1] for each in words if len(each) > 1 and each[0] == "nameserver"]
    return tuple(each for each in found if ":" not in each)


def resolv_conf(machines: str) -> str:
    """What instances find as `/etc/resolv.conf`: the machine's, but for where the name servers are."""
    kept = [line for line in machines.splitlines() if line.split()[:1] not in (["nameserver"], [])]
    return "\n".join([f"nameserver {SERVER_ADDRESS}", *kept, ""])
