"""Objects in S3: what models are made from. The same code for the embedded S3 and any other."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from obstore.store import S3Store

_CHUNK = 4 * 1024 * 1024


class ObjectError(Exception):
    """An object cannot be had; the text says which and why."""


@dataclass(frozen=True, slots=True)
class ObjectUrl:
    """Where an object is, or (key ending in `/`, or empty) a prefix of objects."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, url: str) -> "ObjectUrl":
        """`s3://bucket/key`, or S3's https forms with the bucket in the host or in the path.

        Raises:
            ObjectError: it is neither.
        """
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

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


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

    async def download(self, url: str, destination: Path) -> int:
        """Write an object to a file as it streams; returns its size in bytes.

        Raises:
            FileNotFoundError: there is no such object.
            ObjectError: it cannot be reached.
        """
        import obstore

        where = ObjectUrl.parse(url)
        size = 0
        with _translated(where):
            result = await obstore.get_async(self._bucket(where.bucket), where.key)
            with destination.open("wb") as file:
                async for chunk in result.stream(min_chunk_size=_CHUNK):
                    size += file.write(chunk)
        return size

    def _bucket(self, name: str) -> "S3Store":
        from obstore.store import S3Store

        store = self._buckets.get(name)
        if store is None:
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
def _translated(where: ObjectUrl) -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no object {where}") from error
    except BaseError as error:
        if "NoSuchBucket" in str(error):
            raise FileNotFoundError(f"there is no bucket {where.bucket}") from error
        raise ObjectError(f"cannot read {where}: {str(error).splitlines()[0]}") from error
