"""Removes what endpoints, instances and crashes have left, by the rules in `retention`, every few minutes."""

import asyncio
import logging
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from moorage.config import Settings
from moorage.controller.fleet import DeploymentPlan, InstanceWorkshop
from moorage.controller.log_files import in_thread, incarnation, instance_of, is_incarnation
from moorage.controller.retention import KeptLog, judge_environments, logs_to_remove
from moorage.launchers.base import InstanceSpec
from moorage.resources import Endpoint
from moorage.storage.base import ResourceStore
from moorage.storage.bucket_policies import BucketPolicies
from moorage.storage.embedded_s3 import EmbeddedS3Unavailable
from moorage.storage.failures import DatabaseUnavailable

_INTERVAL_SECONDS: Final = 300.0
_SECONDS_BETWEEN_SEARCHES: Final = 86400.0
"""Between searches for what uploads and crashes have left. No check at start-up lasts as long."""
_UPLOAD_KEEP_SECONDS: Final = 7 * 86400.0
"""How long a multipart upload may get no part, nor be completed."""
_PROBES: Final = re.compile(r"moorage-probe-\w+")
logger = logging.getLogger(__name__)


class Housekeeper:
    """`instances` tells what runs, or is about to. Nothing is removed before that is known. `bucket_policies` are
    those of the embedded S3, if it is used."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: ResourceStore,
        workshop: InstanceWorkshop,
        instances: Callable[[], Collection[InstanceSpec]],
        bucket_policies: BucketPolicies | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._workshop = workshop
        self._instances = instances
        self._bucket_policies = bucket_policies

    async def run(self, recovered: asyncio.Event) -> None:
        """Sweep until cancelled, from when it is known which instances there are."""
        await recovered.wait()
        searched: float | None = None
        while True:
            await self.remove_stale_bucket_policies()
            try:
                await self.sweep(time.time())
                if searched is None or time.monotonic() - searched >= _SECONDS_BETWEEN_SEARCHES:
                    searched = time.monotonic()
                    await self.remove_temporary_files(time.time())
            except Exception:
                logger.exception(
                    "what is left of deleted endpoints is not removed now, and is looked at again"
                )
            await asyncio.sleep(_INTERVAL_SECONDS)

    async def remove_stale_bucket_policies(self) -> None:
        """A crash, or a database that did not answer, can leave one while its bucket is deleted."""
        if self._bucket_policies is None:
            return
        try:
            await self._bucket_policies.remove_stale()
        except (EmbeddedS3Unavailable, DatabaseUnavailable) as error:
            logger.warning("policies of buckets that are gone are looked for again later: %s", error)

    async def sweep(self, now: float) -> None:
        """Remove logs and environments that are not needed any more at the time `now`, in seconds since 1970.

        The disk is read before the database: whatever is there of an endpoint was made after its row.
        """
        root, environments = self._settings.log_dir, self._settings.data_dir / "environments"
        logs, directories = await in_thread(_logs_below, root)
        found = await in_thread(_entries, environments)
        if not self._judge(logs, found, (), now):
            return  # as nearly always: the rows of all endpoints need not be read
        endpoints = await self._store.all_endpoints()
        # Nothing is awaited from here on: what is launched later finds the directories as they are then.
        for path in self._judge(logs, found, endpoints, now):
            self._workshop.put_away(path)
        living: set[tuple[str, ...]] = set()
        for endpoint in endpoints:
            living |= {_incarnation_of(endpoint), _incarnation_of(endpoint)[:2]}
        for directory in directories:
            parts = directory.relative_to(root).parts
            if len(parts) >= 2 and parts[:3] not in living:
                with suppress(OSError):  # it holds something
                    directory.rmdir()

    def _judge(
        self,
        logs: Collection[KeptLog],
        found: Mapping[str, float],
        endpoints: Collection[Endpoint],
        now: float,
    ) -> list[Path]:
        """What to remove; environments that are used are marked so. Of fewer endpoints, more is to be removed."""
        running = self._instances()
        expired = logs_to_remove(
            logs,
            endpoints={_incarnation_of(each): each.status for each in endpoints},
            instances={spec.instance_id for spec in running},
            now=now,
            keep_seconds=self._settings.deleted_endpoint_keep_seconds,
        )
        decision = judge_environments(
            found,
            used={Path(spec.cache_dir).name for spec in running} | self._environments_of(endpoints),
            now=now,
            keep_seconds=self._settings.deleted_endpoint_keep_seconds,
        )
        environments = self._settings.data_dir / "environments"
        for name in decision.touched:
            with suppress(FileNotFoundError):
                os.utime(environments / name, (now, now), follow_symlinks=False)
        return [*(Path(log.path) for log in expired), *(environments / name for name in decision.removed)]

    async def remove_temporary_files(self, now: float) -> None:
        """Remove uploads to the embedded S3 that nobody finishes, and what a crash has left of checks at start-up."""
        if not self._settings.s3_endpoint:
            await self._workshop.remove_unfinished_uploads(older_than=now - _UPLOAD_KEEP_SECONDS)
        for path in await in_thread(_probes, Path(tempfile.gettempdir()), now - _SECONDS_BETWEEN_SEARCHES):
            await self._workshop.remove(path)

    def _environments_of(self, endpoints: Collection[Endpoint]) -> set[str]:
        return {
            self._workshop.environment_of(endpoint, variant).name
            for endpoint in endpoints
            if endpoint.deployed is not None
            for variant in DeploymentPlan.from_document(endpoint.deployed).variants
        }


def _incarnation_of(endpoint: Endpoint) -> tuple[str, str, str]:
    return endpoint.account_id, endpoint.name, incarnation(endpoint)


def _logs_below(root: Path) -> tuple[list[KeptLog], list[Path]]:
    """The files of `root/<account>/<endpoint>/<incarnation>/<variant>/<file>`, of which those that lie elsewhere have
    no incarnation, and the directories, each after those in it."""
    logs, directories = [], []
    for directory, _, names in os.walk(root, topdown=False):
        path = Path(directory)
        directories.append(path)
        account_id, endpoint_name, name, *_ = [*path.relative_to(root).parts, "", "", ""]
        for file in names:
            with suppress(FileNotFoundError):
                status = (path / file).lstat()
                logs.append(
                    KeptLog(
                        path=str(path / file),
                        account_id=account_id,
                        endpoint_name=endpoint_name,
                        incarnation=name if is_incarnation(name) else "",
                        instance_id=instance_of(file) or "",
                        modified=status.st_mtime,
                        size=status.st_blocks * 512,
                    )
                )
    return logs, directories


def _entries(directory: Path) -> dict[str, float]:
    """Each entry's name, and when it was modified."""
    try:
        return {path.name: path.lstat().st_mtime for path in directory.iterdir()}
    except FileNotFoundError:
        return {}


def _probes(directory: Path, modified_before: float) -> list[Path]:
    """Directories that checks of ours have left among everyone's temporary files."""
    found = []
    for path in directory.iterdir():
        if _PROBES.fullmatch(path.name):
            with suppress(FileNotFoundError):
                status = path.lstat()
                is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
                if is_ours and status.st_mtime < modified_before:
                    found.append(path)
    return found
