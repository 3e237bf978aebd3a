"""Objects in S3: models, and the inputs and results of asynchronous inference. The same code for any S3.

Everything is done on behalf of an execution role: `Objects.acting_as` gives the store through which that role reads
and writes. What it may do an `Authority` decides, or the S3 itself, by the credentials that it is called with.
"""

import asyncio
import os
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Hashable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from obstore import AsyncWritableFile, GetResult
    from obstore.store import S3Credential, S3Store

_CHUNK = 4 * 1024 * 1024
_PIECE = 512 * 1024
_PART = 8 * 1024 * 1024
_MOST_WRITERS = 16
"""Downloads to files that write at once: a disk that is slow makes each of them wait, and nothing else."""
_MOST_CLIENTS = 256
"""Clients that are kept, one for each role and bucket: each has connections of its own."""
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_SAID = {
    "place": re.compile(r"Error performing [A-Z]+ (\w+://[^/\s]+)"),
    "status": re.compile(r"status code: (\d{3})"),
    "code": re.compile(r"<Code>([^<]+)</Code>"),
    "message": re.compile(r"<Message>([^<]+)</Message>"),
    "cause": re.compile(r"HTTP error: ([^\n]+)"),
}
"""What of obstore's texts is of use to people: which S3, what it answered, or why it did not."""


_UNKNOWN_CREDENTIALS = frozenset({"InvalidAccessKeyId", "InvalidToken", "ExpiredToken"})
"""The codes by which a gateway refuses a role of which it has not been told yet."""


class ObjectError(Exception):
    """An object cannot be had; the text says which and why."""


class ObjectStoreUnavailable(ObjectError):
    """The S3 itself does not answer, or with an error of its own: another attempt may succeed."""


class ObjectAccessDenied(ObjectError):
    """The role that is acted for may not do it; or the object may be there or not, which the role may not know."""


class RoleRefused(ObjectAccessDenied):
    """The platform must not act as that role at all; the text says why."""


@dataclass(frozen=True, slots=True)
class Principal:
    """On whose behalf objects are read and written: the execution role of a model, of an account (None: the account
    itself), for the resource `source_arn`, a model or an endpoint. `role_exists`: the role did when the model was
    made."""

    account_id: str
    role_arn: str | None
    source_arn: str
    role_exists: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What an S3 is called with. `expires` is when others are to be asked for; None: never."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    expires: datetime | None = None


class Acting(Protocol):
    """What a principal may do, at this moment."""

    @property
    def key(self) -> Hashable:
        """Those with the same one have the same credentials."""

    @property
    def is_role(self) -> bool:
        """Whether the credentials are the role's: then the S3 decides what it may do, by them."""

    async def credentials(self) -> Credentials:
        """Those to call the S3 with, for a while."""

    def authorize(self, action: str, resource: str, context: Mapping[str, str]) -> None:
        """Raises `ObjectAccessDenied` for what the S3 would not refuse by itself, `ObjectError` where it cannot be
        called at all."""


class Authority(Protocol):
    async def acting(self, principal: Principal) -> Acting:
        """Raises `RoleRefused` if the platform must not act for that principal."""


@dataclass(frozen=True, slots=True)
class ObjectUrl:
    """Where an object is, or (key ending in `/`, or empty) a prefix of objects."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, url: str) -> "ObjectUrl":
        """`s3://bucket/key`, or S3's https forms with the bucket in the host or in the path.

        Raises:
            ObjectError: it is neither, or no bucket can have that name.
        """
        where = cls._split(url)
        if not _BUCKET.fullmatch(where.bucket):
            raise ObjectError(
                f"{url} is not the URL of an S3 object: {where.bucket!r} cannot be the name of a bucket"
            )
        return where

    @classmethod
    def _split(cls, url: str) -> "ObjectUrl":
        parts = urlsplit(url)
        host, path = parts.netloc, unquote(parts.path.lstrip("/")) if parts.scheme == "https" else ""
        if parts.scheme == "s3" and host:
            # A key is taken as it stands: it may hold '?', '#' and '%'.
            bucket, _, key = url.removeprefix("s3://").partition("/")
            return cls(bucket, key)
        if (
            parts.scheme == "https"
            and ".s3" in host
            and host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
        ):
            return cls(host.split(".s3", 1)[0], path)
        if parts.scheme == "https" and path:
            bucket, _, key = path.partition("/")
            return cls(bucket, key)
        raise ObjectError(f"{url} is not the URL of an S3 object")

    @classmethod
    def parse_object(cls, url: str) -> "ObjectUrl":
        """The URL of one object. Raises `ObjectError` also when it names a bucket or a folder only."""
        where = cls.parse(url)
        if not where.key or where.key.endswith("/"):
            raise ObjectError(
                f"{url} names no object: there is no key after the bucket, or it ends in a slash"
            )
        return where

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


class ObjectTooLarge(ObjectError):
    """An object is larger than the caller takes."""


class ObjectReader:
    """An object whose bytes are on their way. `size` in bytes."""

    def __init__(self, place: "_Place", result: "GetResult") -> None:
        self._place = place
        self._result = result
        self.size = result.meta["size"]
        content_type = result.attributes.get("Content-Type")
        self.content_type = content_type if isinstance(content_type, str) else None

    async def chunks(self) -> AsyncIterator[bytes]:
        """Pieces of about 512 KiB. Raises `ObjectError`."""
        with _translated(self._place):
            async for chunk in self._result.stream(min_chunk_size=_PIECE):
                yield bytes(chunk)


class ObjectWriter:
    """An object that is being written."""

    def __init__(self, place: "_Place", file: "AsyncWritableFile") -> None:
        self._place = place
        self._file = file

    async def write(self, data: bytes) -> None:
        with _translated(self._place, "write"):
            await self._file.write(data)

    async def close(self) -> None:
        with _translated(self._place, "write"):
            await self._file.close()


class Objects:
    """An S3, by its endpoint URL ("" for AWS itself)."""

    def __init__(self, *, endpoint: str, region: str, authority: Authority) -> None:
        self._endpoint = endpoint
        self._region = region
        self._authority = authority
        self._clients: OrderedDict[tuple[Hashable, str], S3Store] = OrderedDict()
        self.writers = ThreadPoolExecutor(_MOST_WRITERS, thread_name_prefix="download")

    def acting_as(
        self, account_id: str, role_arn: str | None, *, source_arn: str, role_exists: bool = False
    ) -> "ObjectStore":
        """The S3 as an execution role may use it; for the arguments see `Principal`."""
        return ObjectStore(self, Principal(account_id, role_arn, source_arn, role_exists))

    async def acting(self, principal: Principal) -> Acting:
        """What a principal may do. Raises `RoleRefused`."""
        return await self._authority.acting(principal)

    async def place(
        self, principal: Principal, where: ObjectUrl, *needed: str, context: Mapping[str, str] | None = None
    ) -> "_Place":
        """The client for what the principal does there. `needed` are actions of IAM.

        Raises:
            ObjectAccessDenied: it may not.
            ObjectError: no such key can be asked for.
        """
        acting = await self.acting(principal)
        for action in needed:
            resource = where.bucket if action == "s3:ListBucket" else f"{where.bucket}/{where.key}"
            acting.authorize(action, f"arn:aws:s3:::{resource}", context or {})
        return _Place(where, self._client(acting, where.bucket), is_role=acting.is_role)

    def _client(self, acting: Acting, bucket: str) -> "S3Store":
        """Those that were used least recently are dropped: one takes some milliseconds to make."""
        from obstore.store import S3Store

        key = (acting.key, bucket)
        client = self._clients.pop(key, None)
        if client is None:
            client = S3Store(
                bucket,
                endpoint=self._endpoint or None,
                region=self._region,
                credential_provider=_Provider(acting),
                virtual_hosted_style_request=False,
                client_options={"allow_http": True, "timeout": "3600s", "connect_timeout": "10s"},
                retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=30)},
            )
        self._clients[key] = client
        if len(self._clients) > _MOST_CLIENTS:
            self._clients.popitem(last=False)
        return client


class _Provider:
    """Gives obstore credentials, and others before they expire."""

    def __init__(self, acting: Acting) -> None:
        self._acting = acting

    async def __call__(self) -> "S3Credential":
        given = await self._acting.credentials()
        return {
            "access_key_id": given.access_key_id,
            "secret_access_key": given.secret_access_key,
            "token": given.session_token,
            "expires_at": given.expires,
        }


@dataclass(frozen=True, slots=True)
class _Place:
    """Where something is done, and with which client."""

    where: ObjectUrl
    client: "S3Store"
    is_role: bool


class ObjectStore:
    """An S3 on behalf of one principal. Everything raises `ObjectAccessDenied` for what that may not do."""

    def __init__(self, objects: Objects, principal: Principal) -> None:
        self._objects = objects
        self._principal = principal

    def __repr__(self) -> str:
        return f"<ObjectStore of {self._principal.account_id} as {self._principal.role_arn}>"

    async def check(self) -> None:
        """Return if the platform may act for the principal. Raises `RoleRefused`."""
        await self._objects.acting(self._principal)

    async def exists(self, url: str) -> bool:
        """Whether there is an object at `url`, or anything below it when it ends in a slash."""
        where = ObjectUrl.parse(url)
        try:
            if where.key == "" or where.key.endswith("/"):
                return bool(await self.keys(url, most=1))
            await self.size(url)
        except FileNotFoundError:
            return False
        return True

    async def size(self, url: str) -> int:
        """The size of an object in bytes.

        Raises:
            FileNotFoundError: there is none.
            ObjectError: it cannot be reached.
        """
        import obstore

        place = await self._at(_object(ObjectUrl.parse(url)), "s3:GetObject")
        with _translated(place):
            head = await obstore.head_async(place.client, place.where.key)
        return head["size"]

    async def keys(self, url: str, *, most: int | None = None) -> list[str]:
        """The keys below a prefix, sorted; all of them unless `most` says how many are enough."""
        import obstore

        where = ObjectUrl.parse(url)
        if where.key.startswith("/"):
            raise _unsupported(where, "list")
        place = await self._at(where, "s3:ListBucket", context={"s3:prefix": where.key})
        found: list[str] = []
        with _translated(place, "list"):
            async for page in obstore.list(place.client, where.key or None, chunk_size=1000):
                found += [item["path"] for item in page if item["path"].startswith(where.key)]
                if most is not None and len(found) >= most:
                    break
        return sorted(found)

    async def download(self, url: str, destination: Path, *, max_bytes: int, keep_free_bytes: int = 0) -> int:
        """Write an object to a file as it streams; returns its size in bytes.

        Nothing is written of one that is larger than `max_bytes`, or that would leave less than `keep_free_bytes` on
        the disk; the disk is looked at again with each piece, since others write to it meanwhile.

        Raises:
            FileNotFoundError: there is no such object.
            ObjectTooLarge: it is larger than `max_bytes`.
            ObjectError: it cannot be reached, or the disk has no room for it.
        """
        import obstore

        where = _object(ObjectUrl.parse(url))
        place = await self._at(where, "s3:GetObject")
        loop = asyncio.get_running_loop()
        written = 0
        with _translated(place):
            result = await obstore.get_async(place.client, where.key)
            size = result.meta["size"]
            if size > max_bytes:
                raise ObjectTooLarge(f"{where} has {size} bytes, and {max_bytes} are the most")
            with destination.open("wb") as file:
                async for chunk in result.stream(min_chunk_size=_CHUNK):
                    disk = os.statvfs(destination.parent)
                    if disk.f_bavail * disk.f_frsize - (size - written) < keep_free_bytes:
                        raise ObjectError(
                            f"the disk of {destination.parent} has no room for the {size} bytes of {where} beside "
                            f"the {keep_free_bytes} that stay free (setting disk_reserve_bytes): delete endpoints or "
                            "other files, or lower the setting"
                        )
                    written += await loop.run_in_executor(self._objects.writers, file.write, chunk)
        return written

    async def open(self, url: str) -> "ObjectReader":
        """An object to be read as it streams.

        Raises:
            FileNotFoundError: there is no such object.
            ObjectError: it cannot be had.
        """
        import obstore

        place = await self._at(_object(ObjectUrl.parse_object(url)), "s3:GetObject")
        with _translated(place):
            return ObjectReader(place, await obstore.get_async(place.client, place.where.key))

    @asynccontextmanager
    async def writing(self, url: str, *, content_type: str | None) -> AsyncIterator["ObjectWriter"]:
        """Write an object in pieces with `await file.write(data)`; there is none until the block ends well.

        Holds one part (8 MiB) in memory. Whatever goes wrong with the S3 is raised as below, by `write` and when the
        block ends.

        Raises:
            FileNotFoundError: there is no such bucket.
            ObjectError: it cannot be written.
        """
        import obstore

        place = await self._at(_object(ObjectUrl.parse_object(url)), "s3:PutObject")
        with _translated(place, "write"):
            file = obstore.open_writer_async(
                place.client,
                place.where.key,
                attributes={"Content-Type": content_type} if content_type else None,
                buffer_size=_PART,
                max_concurrency=1,
            )
        writer = ObjectWriter(place, file)
        yield writer
        await writer.close()

    async def put(self, url: str, data: bytes, *, content_type: str) -> None:
        """Write a small object. Raises as `writing` does."""
        import obstore

        place = await self._at(_object(ObjectUrl.parse_object(url)), "s3:PutObject")
        with _translated(place, "write"):
            await obstore.put_async(
                place.client, place.where.key, data, attributes={"Content-Type": content_type}
            )

    async def last_modified(self, url: str) -> datetime | None:
        """None if there is no such object. Raises `ObjectError`."""
        import obstore

        place = await self._at(_object(ObjectUrl.parse_object(url)), "s3:GetObject")
        try:
            with _translated(place):
                return (await obstore.head_async(place.client, place.where.key))["last_modified"]
        except FileNotFoundError:
            return None

    async def delete(self, url: str) -> None:
        """Nothing happens if there is no such object. Raises `ObjectError`."""
        import obstore

        place = await self._at(_object(ObjectUrl.parse_object(url)), "s3:DeleteObject")
        try:
            with _translated(place, "delete"):
                await obstore.delete_async(place.client, place.where.key)
        except FileNotFoundError:
            return

    async def _at(self, where: ObjectUrl, *needed: str, context: Mapping[str, str] | None = None) -> _Place:
        return await self._objects.place(self._principal, where, *needed, context=context)


def _object(where: ObjectUrl) -> ObjectUrl:
    """Raises `ObjectError` for a key of which obstore would strip a slash: it would take another object than the one
    that was asked for, and authorised."""
    if where.key != where.key.strip("/"):
        raise _unsupported(where, "use")
    return where


def _unsupported(where: ObjectUrl, action: str) -> ObjectError:
    return ObjectError(
        f"cannot {action} {where}: keys with an empty, '.' or '..' part between slashes, or with control "
        "characters, are not supported"
    )


@contextmanager
def _translated(place: _Place, action: str = "read") -> Iterator[None]:
    """Errors of the S3 as ours, with the place that they are about. Those of local files are passed on."""
    from obstore.exceptions import BaseError

    try:
        yield
    except ValueError as error:
        raise _unsupported(place.where, action) from error
    except BaseError as error:
        raise _as_ours(error, place, action) from error
    except OSError as error:  # what obstore's writers raise, whatever is wrong
        if error.errno is not None:
            raise
        raise _as_ours(error, place, action) from error


def _as_ours(error: Exception, at: _Place, action: str) -> Exception:
    """What another attempt may cure is `ObjectStoreUnavailable`."""
    where, text = at.where, str(error)
    said = {name: match[1] for name, pattern in _SAID.items() if (match := pattern.search(text))}
    place = f"the S3 at {said['place']}" if "place" in said else "the S3"
    answer = ": ".join(said[name] for name in ("code", "message") if name in said) or _first_line(error)
    status = said.get("status")
    if status == "404" or isinstance(error, FileNotFoundError):
        if action == "write" and said.get("code") != "NoSuchBucket":
            return ObjectStoreUnavailable(
                f"cannot write {where}: {place} does not have what it was given ({answer}). Its own log says why; "
                "often its disk is full"
            )
        missing = f"bucket {where.bucket}" if said.get("code") == "NoSuchBucket" else f"object {where}"
        return FileNotFoundError(f"there is no {missing}")
    if at.is_role and said.get("code") in _UNKNOWN_CREDENTIALS:
        return ObjectStoreUnavailable(
            f"cannot {action} {where}: {place} does not know the role yet ({answer})"
        )
    if at.is_role and status in ("401", "403"):
        return access_denied(where, action)
    if status in ("401", "403"):
        return ObjectError(
            f"cannot {action} {where}: access denied by {place} ({answer}). Check the S3 credentials in the "
            "environment of the server, and what they allow"
        )
    if status is None and "Content-Type header contained" in text:
        return ObjectError(
            f"cannot {action} {where}: its Content-Type has characters beyond ASCII. Write the object with another"
        )
    if status is None:
        return ObjectStoreUnavailable(
            f"cannot {action} {where}: {place} does not answer ({said.get('cause') or _first_line(error)}). "
            "Check that it is running and can be reached"
        )
    if status.startswith("5") or status in ("408", "429"):
        hint = ". Its own log says why; often its disk is full" if status == "500" else ""
        return ObjectStoreUnavailable(
            f"cannot {action} {where}: {place} fails with status {status} ({answer}){hint}"
        )
    return ObjectError(f"cannot {action} {where}: refused by {place} with status {status} ({answer})")


def access_denied(where: ObjectUrl, action: str) -> ObjectAccessDenied:
    """In AWS's words, as far as they are known: the same whether there is such an object or not."""
    done = {
        "read": "Failed to download the object from",
        "list": "Failed to list the objects at",
        "write": "Failed to upload the object to",
        "delete": "Failed to delete the object at",
    }[action]
    there = "the bucket exists" if action == "write" else "there is an object located at the URL"
    permission = {"read": "download the object", "list": "list the bucket", "write": "upload the object"}
    return ObjectAccessDenied(
        f'{done} URL: "{where}". Please ensure that {there} and that the role passed to CreateModel has permissions '
        f"to {permission.get(action, 'delete the object')}."
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
