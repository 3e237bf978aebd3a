"""The accounts of the embedded S3: who they are, and what they sign with.

Every account of Moorage is one there: its access key is its id. Its secret is derived from a master key, and by the
S3 itself in the same way (`s3/accounts.go`), so that none is stored or handed over. The master key is made at each
start of the server, and given to its processes in their environment.
"""

import hmac
import secrets
from collections.abc import Mapping
from typing import Final

ADMINISTRATOR: Final = "moorage"
"""Who may do everything there: no account of Moorage has this id."""
KEY_VARIABLE: Final = "MOORAGE_S3_KEY"
"""The environment variable that gives processes the master key, in hexadecimal digits."""
REGION: Final = "us-east-1"


class S3Accounts:
    """`master` is the master key: at least 32 bytes."""

    def __init__(self, master: bytes) -> None:
        self._master = master

    def __repr__(self) -> str:
        return "<S3Accounts>"

    @classmethod
    def new(cls) -> "S3Accounts":
        """With a master key that nobody has had before."""
        return cls(secrets.token_bytes(32))

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> "S3Accounts":
        """With that of the environment. Raises `KeyError` if there is none."""
        return cls(bytes.fromhex(environment[KEY_VARIABLE]))

    @property
    def master_hex(self) -> str:
        """What all secrets are derived from, in hexadecimal digits."""
        return self._master.hex()

    def secret_of(self, account_id: str) -> str:
        """The secret access key of an account, or of the administrator."""
        return hmac.digest(self._master, account_id.encode(), "sha256").hex()
