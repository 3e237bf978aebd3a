"""The same container behind the gateway, once on the machine's network and once in a network of its own.

Usage: python benchmarks/networks.py [--rounds 5] [--seconds 4] [--connections 32]   (as root)

The gateway has core 0, the container and the load generator (wrk) share core 1. The contenders take turns within each
round; the figures are medians over the rounds, and the ratios those of the same round. "a connection each" is a
container that closes its connection after every reply, so that the gateway makes a socket in its network for each
invocation.
"""

import sys
from contextlib import ExitStack

from bare_gateway import BODY
from gateway import figures_of, load, url_at
from harness import (
    HERE,
    LOAD_CORE,
    SUBJECT_CORE,
    Effort,
    connections_of,
    free_port,
    process,
    run_alone,
    take_turns,
    wait_until_answered,
)
from moorage import network_namespace
from signing import signed
from tables import Table

HOST, OWN = "the machine's network", "a network of its own"


def measure(effort: Effort) -> list[Table]:
    why_not = network_namespace.why_unusable()
    if why_not is not None:
        raise SystemExit(f"networks cannot be compared here: {why_not}")
    tables = []
    for label, arguments in (("kept connections", ()), ("a connection each", ("--closing",))):
        with ExitStack() as stack:
            ports = {HOST: free_port(), OWN: free_port()}
            container = free_port()
            echo = (sys.executable, HERE / "echo_container.py", container, *arguments)
            stack.enter_context(process(*echo, core=LOAD_CORE))
            with network_namespace.new_namespace():
                own = stack.enter_context(process(*echo, core=LOAD_CORE))
            networks = {HOST: "", OWN: network_namespace.reference(own.pid)}
            for name, port in ports.items():
                command = (sys.executable, HERE / "bare_gateway.py", port, container, networks[name])
                stack.enter_context(process(*command, core=SUBJECT_CORE))
            for port in ports.values():
                answer = wait_until_answered(url_at(port), BODY, signed(url_at(port), BODY))
                assert answer == BODY
            for count in (effort.connections, 1):
                loads = take_turns(
                    list(ports),
                    effort.rounds,
                    lambda name, count=count, ports=ports: load(ports[name], effort.seconds, count),
                    warm_up=True,
                )
                tables.append(
                    Table(
                        name=f"networks-{len(tables)}",
                        title=f"A network of its own, {label}, {connections_of(count)}",
                        setup=f"A body of {len(BODY)} bytes, {effort.rounds} rounds of {effort.seconds} s.",
                        figures=figures_of(loads),
                        base=HOST,
                        compared=["requests/s", "p99 ms"],
                    )
                )
    return tables


if __name__ == "__main__":
    sys.exit(run_alone(__doc__, measure))
