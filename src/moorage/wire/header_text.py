"""The values of HTTP headers as text.

To HTTP they are bytes. botocore sends text as UTF-8, and signs it so; the server sends text the same way. Starlette,
http.client (and so boto3) and Node take the bytes for Latin-1, so what they give goes through here instead.
"""

import re
from collections.abc import Iterable
from typing import Final

_CONTROLS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""What no header value may hold (RFC 9110, 5.5); a tab may stand in one."""


def decode(value: bytes) -> str:
    """The text of a value. Bytes that are no UTF-8 become U+FFFD."""
    return value.decode("utf-8", "replace")


def decode_all(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The texts of an ASGI scope's headers by name. ASGI has the names in lower case; of several the last counts."""
    return {name.decode("ascii"): decode(value) for name, value in headers}


def from_latin_1(text: str) -> str:
    """The text of a value that an HTTP library has read as Latin-1."""
    return decode(text.encode("latin-1"))


def is_text(value: bytes) -> bool:
    """Whether a value is UTF-8."""
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def can_carry(text: str) -> bool:
    """Whether a header's value can be this text."""
    return _CONTROLS.search(text) is None
