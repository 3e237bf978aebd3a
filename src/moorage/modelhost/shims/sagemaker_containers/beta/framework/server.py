"""The server of an image of one's own."""

from typing import Any


def start(app: Any) -> None:
    raise RuntimeError(
        "server.start starts the server of an image of your own; this container serves the script by itself"
    )


def next_safe_port(port_range: str | None, after: str | int | None = None) -> str:
    first, last = map(int, (port_range or "").split("-"))
    wanted = first if after is None else int(after) + 1
    if not first <= wanted <= last:
        raise ValueError(f"{wanted} is outside of the acceptable port range for SageMaker: {port_range}")
    return str(wanted)
