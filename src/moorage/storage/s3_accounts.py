"""The accounts of the embedded S3: who they are, and what they sign with.

Every account of Moorage is one there: its access key is its id. Its secret is derived from the secret key of the data
directory, and by the S3 itself in the same way (`s3/accounts.go`), so that none is stored or handed over.
"""

import hmac
from pathlib import Path
from typing import Final

from moorage.auth.sealing import read_or_create_secret_key

ADMINISTRATOR: Final = "moorage"
"""Who may do everything there: no account of Moorage has this id."""
KEY_VARIABLE: Final = "MOORAGE_S3_KEY"
"""The environment variable that gives the S3 its master key."""
REGION: Final = "us-east-1"
_PURPOSE: Final = b"moorage embedded s3 1"


class S3Accounts:
    """`secret_key` is the secret key of the data directory (`moorage.auth.sealing`)."""

    def __init__(self, secret_key: bytes) -> None:
        self._master = hmac.digest(secret_key, _PURPOSE, "sha256")

    def __repr__(self) -> str:
        return "<S3Accounts>"

    @property
    def master_hex(self) -> str:
        """What all secrets are derived from, in hexadecimal digits."""
        return self._master.hex()

    def secret_of(self, account_id: str) -> str:
        """The secret access key of an account, or of the administrator."""
        return hmac.digest(self._master, account_id.encode(), "sha256").hex()


def read_s3_accounts(*, secret_key: str, path: Path) -> S3Accounts:
    """With the setting `secret_key`, or if that is empty, the key in the file `path`, which is made if it is missing.

    Raises:
        ValueError: the file holds no key.
        OSError: it cannot be read or made.
    """
    return S3Accounts(secret_key.encode() if secret_key else read_or_create_secret_key(path))
