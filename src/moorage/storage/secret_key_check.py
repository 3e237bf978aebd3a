"""Whether the secret key is the one that sealed the secrets in a database."""

from pathlib import Path

from sqlalchemy import select

from moorage.auth.sealing import Sealer, UnsealError, create_sealer
from moorage.storage.database import Database
from moorage.storage.failures import UnusableDatabase
from moorage.storage.identity_snapshot import purpose_of_key
from moorage.storage.schema import access_keys

_any_key = select(access_keys.c.access_key_id, access_keys.c.sealed_secret).limit(1)
_WHAT_NOW = (
    "Restore it from a backup, or from the server that used this database before. What to do when it is lost for "
    "good is in docs/settings.md."
)


async def checked_sealer(database: Database, *, secret_key: str, path: Path) -> Sealer:
    """The sealer of this database's secrets. Its key is `secret_key`, or if that is empty, in the file `path`, which
    is made for a database that has no secrets yet.

    Raises:
        UnusableDatabase: the key is lost, cannot be read, or is another one.
    """
    async with database.read() as connection:
        sealed = (await connection.execute(_any_key)).one_or_none()
    if sealed is not None and not secret_key and not path.exists():
        raise UnusableDatabase(
            f"The secret key is lost: there is no file {path}, and {database.name} has secrets that were sealed with "
            f"it. {_WHAT_NOW}"
        )
    try:
        sealer = create_sealer(secret_key=secret_key, path=path)
    except (ValueError, OSError) as error:
        raise UnusableDatabase(f"The secret key cannot be read: {error}.") from error
    if sealed is not None:
        try:
            sealer.unseal(sealed.sealed_secret, purpose=purpose_of_key(sealed.access_key_id))
        except UnsealError:
            where = "the setting secret_key" if secret_key else f"the file {path}"
            raise UnusableDatabase(
                f"The secret key in {where} is not the one with which the secrets in {database.name} were sealed. "
                f"{_WHAT_NOW}"
            ) from None
    return sealer
