"""The policies of buckets of the embedded S3.

Whether a bucket is there, and whose it is, only that S3 knows. So a change of a bucket's policy and the deletion of
the bucket come one after the other, each with what the S3 says in between: a policy never outlives its bucket. One
process does both, the controller that leads the database.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakValueDictionary

from sqlalchemy import bindparam, delete, insert, select

from moorage.storage import schema
from moorage.storage.database import Database

_TABLE = schema.bucket_policies
_BY_NAME = select(_TABLE.c.account_id, _TABLE.c.document).where(_TABLE.c.bucket == bindparam("bucket"))
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredBucketPolicy:
    """`account_id` owned the bucket when it was put."""

    account_id: str
    document: str


class Buckets(Protocol):
    """The S3, as `moorage.storage.embedded_s3.EmbeddedS3`."""

    async def owner_of(self, bucket: str) -> str | None: ...

    async def delete_bucket(self, account_id: str, bucket: str) -> None: ...


class NoSuchBucket(Exception):
    """There is no such bucket."""


class AnothersBucket(Exception):
    """The bucket belongs to another account."""


class BucketPolicies:
    """`on_change` is called after each committed change."""

    def __init__(
        self, database: Database, buckets: Buckets, *, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._database = database
        self._buckets = buckets
        self._on_change = on_change
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def put(self, account_id: str, bucket: str, document: str) -> None:
        """Give a bucket of this account the policy, in place of any other.

        Raises:
            NoSuchBucket, AnothersBucket, EmbeddedS3Unavailable: nothing was done.
        """
        async with self._alone_with(bucket):
            await self._check_owner(account_id, bucket)
            async with self._database.write() as connection:
                await connection.execute(delete(_TABLE).where(_TABLE.c.bucket == bucket))
                await connection.execute(
                    insert(_TABLE).values(
                        bucket=bucket,
                        account_id=account_id,
                        document=document,
                    )
                )
        self._on_change()

    async def get(self, account_id: str, bucket: str) -> str | None:
        """The policy of a bucket of this account; None if it has none.

        Raises:
            NoSuchBucket, AnothersBucket, EmbeddedS3Unavailable: see there.
        """
        await self._check_owner(account_id, bucket)
        found = await self._find(bucket)
        return found.document if found is not None and found.account_id == account_id else None

    async def remove(self, account_id: str, bucket: str) -> None:
        """Take the policy from a bucket of this account; nothing if it has none.

        Raises:
            NoSuchBucket, AnothersBucket, EmbeddedS3Unavailable: nothing was done.
        """
        async with self._alone_with(bucket):
            await self._check_owner(account_id, bucket)
            async with self._database.write() as connection:
                found = await connection.execute(delete(_TABLE).where(_TABLE.c.bucket == bucket))
        if found.rowcount:
            self._on_change()

    async def delete_bucket(self, account_id: str, bucket: str) -> bool:
        """Delete a bucket of this account, with its policy. Returns whether it had one.

        If the commit fails after the S3 has deleted the bucket, or this process is killed in between, its policy is
        left until `remove_stale`.

        Raises:
            NoSuchBucket, AnothersBucket, EmbeddedS3Unavailable: nothing was done.
            S3Refusal: the S3 does not delete it, such as BucketNotEmpty; nothing was done.
        """
        async with self._alone_with(bucket):
            owner = await self._buckets.owner_of(bucket)
            if owner is not None and owner != account_id:
                raise AnothersBucket(bucket)
            if await self._find(bucket) is None:
                if owner is None:
                    raise NoSuchBucket(bucket)
                await self._buckets.delete_bucket(account_id, bucket)
                return False
            async with self._database.write() as connection:
                await connection.execute(delete(_TABLE).where(_TABLE.c.bucket == bucket))
                if owner is not None:
                    await self._buckets.delete_bucket(account_id, bucket)
        self._on_change()
        if owner is None:
            raise NoSuchBucket(bucket)
        return True

    async def all(self) -> Mapping[str, StoredBucketPolicy]:
        """By the bucket's name."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(_TABLE))
            return {row.bucket: StoredBucketPolicy(row.account_id, row.document) for row in rows}

    async def remove_stale(self) -> None:
        """Remove the policies of buckets that are gone, or that another account has made anew.

        Raises:
            EmbeddedS3Unavailable: it is not known of all.
        """
        for bucket in await self.all():
            async with self._alone_with(bucket):
                found = await self._find(bucket)
                if found is None or await self._buckets.owner_of(bucket) == found.account_id:
                    continue
                async with self._database.write() as connection:
                    await connection.execute(delete(_TABLE).where(_TABLE.c.bucket == bucket))
            logger.warning("the policy of bucket %s is removed, since its bucket is gone", bucket)
            self._on_change()

    async def _check_owner(self, account_id: str, bucket: str) -> None:
        owner = await self._buckets.owner_of(bucket)
        if owner is None:
            raise NoSuchBucket(bucket)
        if owner != account_id:
            raise AnothersBucket(bucket)

    async def _find(self, bucket: str) -> StoredBucketPolicy | None:
        rows = await self._database.rows(_BY_NAME, bucket=bucket)
        return StoredBucketPolicy(rows[0].account_id, rows[0].document) if rows else None

    def _alone_with(self, bucket: str) -> AbstractAsyncContextManager[None]:
        return self._locks.setdefault(bucket, asyncio.Lock())
