"""Sealing: secrets that only this installation can read, and tokens that only it can have made.

AES-256-GCM under one key (NIST SP 800-38D, with a random nonce each). What something is sealed *for* is authenticated
too, so that a sealed secret is no session token, nor one key's secret another's.
"""

import base64
import binascii
import hmac
import os
import secrets
from pathlib import Path

from moorage.auth.credentials import create_private_file

LEAST_KEY_BYTES = 16
_NONCE_BYTES = 12
_VERSION = b"\x01"


class UnsealError(Exception):
    """It was not sealed with this key for this purpose, or was changed since."""


class Sealer:
    """Seals under keys derived from `key`, which is any secret bytes."""

    def __init__(self, key: bytes) -> None:
        # Only what seals pays for this import: gateways without session tokens to open do not.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if len(key) < LEAST_KEY_BYTES:
            raise ValueError(f"a key has at least {LEAST_KEY_BYTES} bytes")
        self._cipher = AESGCM(hmac.digest(key, b"moorage sealing 1", "sha256"))

    def seal(self, content: bytes, *, purpose: str) -> str:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, content, purpose.encode())
        return base64.b64encode(_VERSION + nonce + sealed).decode()

    def unseal(self, sealed: str, *, purpose: str) -> bytes:
        """What was sealed for the same purpose.

        Raises:
            UnsealError: see there.
        """
        from cryptography.exceptions import InvalidTag

        try:
            raw = base64.b64decode(sealed, validate=True)
            if raw[:1] != _VERSION:
                raise UnsealError("not a sealed value")
            nonce, rest = raw[1 : 1 + _NONCE_BYTES], raw[1 + _NONCE_BYTES :]
            return self._cipher.decrypt(nonce, rest, purpose.encode())
        except (binascii.Error, ValueError, InvalidTag) as error:
            raise UnsealError("not a sealed value, or not one of this key and purpose") from error


def create_sealer(*, secret_key: str, path: Path) -> Sealer:
    """With `secret_key`, or if that is empty, the key in the file `path`, which is made when there is none."""
    return Sealer(secret_key.encode() if secret_key else read_or_create_secret_key(path))


def read_or_create_secret_key(path: Path) -> bytes:
    """The key in `path` (one line of text, mode 0600). Two starts at once agree on one key.

    Raises:
        ValueError: the file holds no key.
    """
    if not path.exists():
        create_private_file(path, secrets.token_urlsafe(32) + os.linesep)
    key = path.read_bytes().strip()
    if len(key) < LEAST_KEY_BYTES:
        raise ValueError(
            f"{path} holds no key, which has at least {LEAST_KEY_BYTES} characters. "
            "Restore it: access keys that were sealed with it are lost otherwise"
        )
    return key
