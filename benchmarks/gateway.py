"""Authenticated InvokeEndpoint through one gateway core, beside nginx, HAProxy and Envoy as plain proxies.

Usage: python benchmarks/gateway.py [--rounds 5] [--seconds 4] [--connections 32]

Each contender runs alone on core 0; the echo container and the load generator (wrk) share core 1, for every contender
alike. The contenders take turns within each round; the figures are medians over the rounds, and the ratios those of
the same round. The gateway verifies SigV4 on every request; the proxies verify nothing.
"""

import sys
from contextlib import ExitStack

from bare_gateway import BODY, PATH
from harness import (
    HERE,
    LOAD_CORE,
    SUBJECT_CORE,
    Effort,
    Load,
    connections_of,
    find,
    free_port,
    process,
    run_alone,
    take_turns,
    wait_until_answered,
    wrk,
)
from proxies import PACKAGES, PROXIES
from signing import signed
from tables import Table

DIRECT, MOORAGE = "the container directly", "moorage"


def measure(effort: Effort) -> list[Table]:
    present = [name for name in PROXIES if find(name)]
    counts = (effort.connections, 1)
    with ExitStack() as stack:
        ports = {name: free_port() for name in (DIRECT, *present, MOORAGE)}
        container = ports[DIRECT]
        stack.enter_context(process(sys.executable, HERE / "echo_container.py", container, core=LOAD_CORE))
        for name in present:
            stack.enter_context(PROXIES[name](ports[name], container))
        command = (sys.executable, HERE / "bare_gateway.py", ports[MOORAGE], container)
        stack.enter_context(process(*command, core=SUBJECT_CORE))
        for name, port in ports.items():
            answer = wait_until_answered(url_at(port), BODY, signed(url_at(port), BODY))
            assert answer == BODY, f"{name} answered wrongly"
        loads = [
            take_turns(
                list(ports),
                effort.rounds,
                lambda name, count=count: load(ports[name], effort.seconds, count),
                warm_up=True,
            )
            for count in counts
        ]
    setup = (
        f"A body of {len(BODY)} bytes, {effort.rounds} rounds of {effort.seconds} s. Moorage verifies SigV4 on "
        "every request, the proxies verify nothing. The contender has one core, container and load generator another."
    )
    return [
        Table(
            name=f"gateway-{count}",
            title=f"One gateway core beside plain proxies, {connections_of(count)}",
            setup=setup,
            figures=figures_of(each),
            base="nginx" if "nginx" in present else DIRECT,
            compared=["requests/s"],
            absent={name: f"not installed; {PACKAGES[name]}" for name in PROXIES if name not in present},
        )
        for count, each in zip(counts, loads, strict=True)
    ]


def url_at(port: int) -> str:
    return f"http://127.0.0.1:{port}{PATH}"


def load(port: int, seconds: int, connections: int) -> Load:
    url = url_at(port)
    return wrk(url, body=BODY, headers=signed(url, BODY), seconds=seconds, connections=connections)


def figures_of(loads: dict[str, list[Load]]) -> dict[str, dict[str, list[float]]]:
    columns = {"requests/s": "requests_per_second", "p50 ms": "p50_ms", "p99 ms": "p99_ms"}
    return {
        figure: {name: [getattr(load, column) for load in runs] for name, runs in loads.items()}
        for figure, column in columns.items()
    }


if __name__ == "__main__":
    sys.exit(run_alone(__doc__, measure))
