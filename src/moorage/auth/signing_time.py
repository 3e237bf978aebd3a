"""When a request was signed: how clients write it, and what they are told when that is too long ago or to come."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from moorage.errors import IncompleteSignatureException

LONGEST_PRESIGNED_SECONDS = 7 * 24 * 3600
_ISO_FORMAT = "%Y%m%dT%H%M%SZ"
_ISO_BASIC = re.compile(rb"\d{8}T\d{6}Z")


def parse_date(date: bytes) -> float:
    """Seconds since the epoch, from a timestamp as in `X-Amz-Date`.

    Raises:
        IncompleteSignatureException: it is none.
    """
    text = date.decode("latin-1")
    try:
        if not _ISO_BASIC.fullmatch(date):
            raise ValueError(text)
        return datetime.strptime(text, _ISO_FORMAT).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise IncompleteSignatureException(
            f"Date must be in ISO-8601 'basic format'. Got '{text}'. "
            "See http://en.wikipedia.org/wiki/ISO_8601",
            fault="date",
        ) from None


def iso_date(headers: dict[bytes, bytes]) -> bytes | None:
    """The header `Date`, which may stand in for `X-Amz-Date`, as the timestamp that was signed with it."""
    date = headers.get(b"date")
    if not date:
        return None
    try:
        parsed = parsedate_to_datetime(date.decode("latin-1"))
        utc = parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        return date
    return utc.strftime(_ISO_FORMAT).encode()


def parse_expires(text: str) -> int:
    sign, digits = text[:1] == "-", text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise IncompleteSignatureException("X-Amz-Expires should be a number", fault="expires_number")
    if sign:
        raise IncompleteSignatureException("X-Amz-Expires must be non-negative", fault="expires_negative")
    if len(digits) > 9 or int(digits) > LONGEST_PRESIGNED_SECONDS:
        raise IncompleteSignatureException(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than "
            f"{LONGEST_PRESIGNED_SECONDS} seconds",
            fault="expires_large",
        )
    return int(digits)


def signature_expired(date: bytes, now: float, seconds: int) -> str:
    return (
        f"Signature expired: {date.decode('latin-1')} is now earlier than {_stamp(now - seconds)} "
        f"({_stamp(now)} - {_duration(seconds)})"
    )


def signature_not_yet_current(date: bytes, now: float, seconds: int) -> str:
    return (
        f"Signature not yet current: {date.decode('latin-1')} is still later than {_stamp(now + seconds)} "
        f"({_stamp(now)} + {_duration(seconds)})"
    )


def _duration(seconds: int) -> str:
    return f"{seconds // 60} min." if seconds % 60 == 0 else f"{seconds} sec."


def _stamp(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime(_ISO_FORMAT)
