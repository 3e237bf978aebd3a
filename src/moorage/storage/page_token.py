"""Tokens that lead from one page of a list to the next.

A token holds the sort key of the last item shown and is signed together with the query: it cannot be made up, nor
be used with other filters, by another account or for another kind.
"""

import base64
import binascii
import dataclasses
import hashlib
import hmac
import json

from moorage.errors import ValidationException
from moorage.storage.base import ListQuery

_MAC_BYTES = 16


def encode(key: bytes, kind: type, account_id: str, query: ListQuery, last: tuple[str, str]) -> str:
    payload = json.dumps(last).encode()
    mac = _mac(key, kind, account_id, query, payload)
    return base64.urlsafe_b64encode(mac + payload).decode()


def decode(key: bytes, kind: type, account_id: str, query: ListQuery) -> tuple[str, str] | None:
    """The sort key after which the query's page starts; None for the first page.

    Raises:
        ValidationException: the token is not one of this query.
    """
    if query.next_token is None:
        return None
    try:
        raw = base64.b64decode(query.next_token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise invalid() from None
    mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(key, kind, account_id, query, payload)):
        raise invalid()
    value, name = json.loads(payload)
    return value, name


def invalid() -> ValidationException:
    return ValidationException(
        'Invalid pagination token because "it is not one that this operation returned for these filters".'
    )


def _mac(key: bytes, kind: type, account_id: str, query: ListQuery, payload: bytes) -> bytes:
    filters = dataclasses.asdict(query)
    del filters["next_token"], filters["max_results"]
    context = json.dumps([kind.__name__, account_id, filters], default=str).encode()
    return hmac.digest(key, context + b"\0" + payload, hashlib.sha256)[:_MAC_BYTES]
