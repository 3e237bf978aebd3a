"""Objects in S3: models, and the inputs and results of asynchronous inference. The same code for any S3."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from obstore import AsyncWritableFile, GetResult
    from obstore.store import S3Store

_CHUNK = 4 * 1024 * 1024
_PIECE = 512 * 1024
_PART = 8 * 1024 * 1024
_MOST_WRITERS = 16
"""Downloads to files that write at once: a disk that is slow makes each of them wait, and nothing else."""
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_SAID = {
    "place": re.compile(r"Error performing [A-Z]+ (\w+://[^/\s]+)"),
    "status": re.compile(r"status code: (\d{3})"),
    "code": re.compile(r"<Code>([^<]+)</Code>"),
    "message": re.compile(r"<Message>([^<]+)</Message>"),
    "cause": re.compile(r"HTTP error: ([^\n]+)"),
}
"""What of obstore's texts is of use to people: which S3, what it answered, or why it did not."""


class ObjectError(Exception):
    """An object cannot be had; the text says which and why."""


class ObjectStoreUnavailable(ObjectError):
    """The S3 itself does not answer, or with an error of its own: another attempt may succeed."""


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

    def __init__(self, where: ObjectUrl, result: "GetResult") -> None:
        self._where = where
        self._result = result
        self.size = result.meta["size"]
        content_type = result.attributes.get("Content-Type")
        self.content_type = content_type if isinstance(content_type, str) else None

    async def chunks(self) -> AsyncIterator[bytes]:
        """Pieces of about 512 KiB. Raises `ObjectError`."""
        with _translated(self._where):
            async for chunk in self._result.stream(min_chunk_size=_PIECE):
                yield bytes(chunk)


class ObjectWriter:
    """An object that is being written."""

    def __init__(self, where: ObjectUrl, file: "AsyncWritableFile") -> None:
        self._where = where
        self._file = file

    async def write(self, data: bytes) -> None:
        with _translated(self._where, "write"):
            await self._file.write(data)

    async def close(self) -> None:
        with _translated(self._where, "write"):
            await self._file.close()


class ObjectStore:
    """An S3, by its endpoint URL ("" for AWS itself) and one key. Buckets are opened as they are needed."""

    def __init__(
        self, *, endpoint: str, region: str, access_key_id: str | None, secret_access_key: str | None
    ) -> None:
        self._endpoint = endpoint
        self._region = region
        self._access_key_id = access_key_id
        self._secret_access_key = secret_access_key
        self._buckets: dict[str, S3Store] = {}
        self._writers = ThreadPoolExecutor(_MOST_WRITERS, thread_name_prefix="download")

    async def exists(self, url: str) -> bool:
        """Whether there is an object at `url`, or anything below it when it ends in a slash."""
        where = ObjectUrl.parse(url)
        if where.key == "" or where.key.endswith("/"):
            return bool(await self.keys(url, most=1))
        try:
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

        where = ObjectUrl.parse(url)
        with _translated(where):
            head = await obstore.head_async(self._bucket(where.bucket), where.key)
        return head["size"]

    async def keys(self, url: str, *, most: int | None = None) -> list[str]:
        """The keys below a prefix, sorted; all of them unless `most` says how many are enough."""
        import obstore

        where = ObjectUrl.parse(url)
        found: list[str] = []
        with _translated(where):
            async for page in obstore.list(self._bucket(where.bucket), where.key or None, chunk_size=1000):
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

        where = ObjectUrl.parse(url)
        loop = asyncio.get_running_loop()
        written = 0
        with _translated(where):
            result = await obstore.get_async(self._bucket(where.bucket), where.key)
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
                    written += await loop.run_in_executor(self._writers, file.write, chunk)
        return written

    async def open(self, url: str) -> "ObjectReader":
        """An object to be read as it streams.

        Raises:
            FileNotFoundError: there is no such object.
            ObjectError: it cannot be had.
        """
        import obstore

        where = ObjectUrl.parse_object(url)
        with _translated(where):
            return ObjectReader(where, await obstore.get_async(self._bucket(where.bucket), where.key))

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

        where = ObjectUrl.parse_object(url)
        with _translated(where, "write"):
            file = obstore.open_writer_async(
                self._bucket(where.bucket),
                where.key,
                attributes={"Content-Type": content_type} if content_type else None,
                buffer_size=_PART,
                max_concurrency=1,
            )
        writer = ObjectWriter(where, file)
        yield writer
        await writer.close()

    async def put(self, url: str, data: bytes, *, content_type: str) -> None:
        """Write a small object. Raises as `writing` does."""
        import obstore

        where = ObjectUrl.parse_object(url)
        with _translated(where, "write"):
            await obstore.put_async(
                self._bucket(where.bucket), where.key, data, attributes={"Content-Type": content_type}
            )

    async def last_modified(self, url: str) -> datetime | None:
        """None if there is no such object. Raises `ObjectError`."""
        import obstore

        where = ObjectUrl.parse_object(url)
        try:
            with _translated(where):
                return (await obstore.head_async(self._bucket(where.bucket), where.key))["last_modified"]
        except FileNotFoundError:
            return None

    async def delete(self, url: str) -> None:
        """Nothing happens if there is no such object. Raises `ObjectError`."""
        import obstore

        where = ObjectUrl.parse_object(url)
        try:
            with _translated(where, "delete"):
                await obstore.delete_async(self._bucket(where.bucket), where.key)
        except FileNotFoundError:
            return

    def _bucket(self, name: str) -> "S3Store":
        from obstore.store import S3Store

        store = self._buckets.get(name)
        if store is None:
            if not (self._access_key_id and self._secret_access_key):
                raise ObjectError(
                    "there are no credentials for the S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the "
                    "environment of the server"
                )
            store = self._buckets[name] = S3Store(
                name,
                endpoint=self._endpoint or None,
                region=self._region,
                access_key_id=self._access_key_id,
                secret_access_key=self._secret_access_key,
                virtual_hosted_style_request=False,
                client_options={"allow_http": True, "timeout": "3600s", "connect_timeout": "10s"},
                retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=30)},
            )
        return store


@contextmanager
def _translated(where: ObjectUrl, action: str = "read") -> Iterator[None]:
    """Errors of the S3 as ours, with the place that they are about. Those of local files are passed on."""
    from obstore.exceptions import BaseError

    try:
        yield
    except ValueError as error:
        raise ObjectError(
            f"cannot {action} {where}: keys with an empty, '.' or '..' part between slashes, or with control "
            "characters, are not supported"
        ) from error
    except BaseError as error:
        raise _as_ours(error, where, action) from error
    except OSError as error:  # what obstore's writers raise, whatever is wrong
        if error.errno is not None:
            raise
        raise _as_ours(error, where, action) from error


def _as_ours(error: Exception, where: ObjectUrl, action: str) -> Exception:
    """What another attempt may cure is `ObjectStoreUnavailable`."""
    text = str(error)
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


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
