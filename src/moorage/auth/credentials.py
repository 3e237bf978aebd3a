"""Access keys, and the file that holds the root key of an installation."""

import configparser
import os
import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_KEY_ALPHABET = string.ascii_uppercase + "234567"
_SECRET_ALPHABET = string.ascii_letters + string.digits + "+/"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKey:
    """A key pair and who it stands for. A session's ends at `expires_at`, in seconds since the epoch."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    account_id: str
    principal_arn: str
    user_id: str
    expires_at: float | None = None


def new_id(prefix: str, length: int) -> str:
    """A unique id in AWS's alphabet, as of access keys (AKIA…, 20 characters) and users (AIDA…, 21)."""
    return prefix + "".join(secrets.choice(_KEY_ALPHABET) for _ in range(length - len(prefix)))


def new_secret() -> str:
    return "".join(secrets.choice(_SECRET_ALPHABET) for _ in range(40))


def create_private_file(path: Path, text: str) -> None:
    """Create `path` with mode 0600, whole or not at all; one that is there already, of another start, stays."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass  # another start was first; what it wrote counts
    finally:
        draft.unlink()


def read_or_create_root_key(path: Path, *, account_id: str) -> AccessKey:
    """The root access key in `path` (AWS shared-credentials format, profile `default`, mode 0600).

    It is created at the first start. Two starts at once agree on one key: the file appears whole or not.
    """
    if not path.exists():
        key_id, secret = new_id("AKIA", 20), new_secret()
        create_private_file(
            path, f"[default]\naws_access_key_id = {key_id}\naws_secret_access_key = {secret}\n"
        )
    return read_root_key(path, account_id=account_id)


def read_root_key(path: Path, *, account_id: str) -> AccessKey:
    """Raises `ValueError` when the file is not one of ours."""
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text())
        profile = parser["default"]
        key_id, secret = profile["aws_access_key_id"], profile["aws_secret_access_key"]
    except KeyError as error:
        raise ValueError(
            f"{path} has no {error} in a [default] profile; delete it to get a new key"
        ) from None
    except (configparser.Error, UnicodeDecodeError):  # whose text may hold a line of the file
        raise ValueError(f"{path} is not a credentials file; delete it to get a new key") from None
    return AccessKey(
        access_key_id=key_id,
        secret_access_key=secret,
        account_id=account_id,
        principal_arn=f"arn:aws:iam::{account_id}:root",
        user_id=account_id,
    )


Credentials = Mapping[str, AccessKey]
"""Access keys by their id: the permanent ones."""

SessionOpener = Callable[[bytes], AccessKey]
"""From a session's token to its key, which is in no `Credentials`: whoever signs with it must send its token. May
raise `UnrecognizedClientException` or `ExpiredTokenException`; the verifier checks by itself when the key expires."""
