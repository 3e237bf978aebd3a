"""Small helpers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_file(path: str, mode: str = "r") -> Any:
    with Path(path).open(mode) as file:
        return file.read()


def write_file(path: str, data: Any, mode: str = "w") -> None:
    with Path(path).open(mode) as file:
        file.write(data)


def retrieve_content_type_header(request_property: Mapping[str, str]) -> str | None:
    """However it is spelled."""
    for name, value in request_property.items():
        if name.lower().replace("_", "-") in ("content-type", "contenttype"):
            return value
    return None


def parse_accept(accept: str | None) -> list[str]:
    return (accept or "").replace(" ", "").split(",")


def remove_crlf(illegal_string: str) -> str:
    return illegal_string.replace("\r", " ").replace("\n", " ")
