"""What is left of deleted endpoints and of crashes, on a disk."""

import os
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from moorage.config import Settings
from moorage.controller.fleet import InstanceWorkshop, VariantPlan
from moorage.controller.housekeeping import Housekeeper
from moorage.controller.log_files import directory_of
from moorage.launchers.base import InstanceSpec
from moorage.resources import Endpoint, EndpointStatus
from moorage.storage.memory import MemoryResourceStore
from moorage.storage.objects import Objects
from tests.async_inference.s3 import AnyRole

from .test_file_workers import until
from .test_log_files import CREATED, endpoint

NOW = CREATED.timestamp()
DAY = 86400.0
DEPLOYED = {
    "EndpointConfig": {"ProductionVariants": [{"VariantName": "v", "ModelName": "m"}]},
    "Models": {"m": {"PrimaryContainer": {"Image": "i"}}},
}
VARIANT = VariantPlan(variant={"VariantName": "v"}, model={}, container={})


class House:
    def __init__(self, data_dir: Path) -> None:
        self.settings = Settings(data_dir=data_dir, deleted_endpoint_keep_seconds=7 * DAY)
        self.store = MemoryResourceStore()
        self.running: list[InstanceSpec] = []
        objects = Objects(endpoint="", region="r", authority=AnyRole())
        self.workshop = InstanceWorkshop(settings=self.settings, objects=objects)
        self.keeper = Housekeeper(
            settings=self.settings, store=self.store, workshop=self.workshop, instances=lambda: self.running
        )

    def log(self, of: Endpoint, instance_id: str, *, days: float, older: bool = False) -> Path:
        name = f"{instance_id}.log" + (".1" if older else "")
        return aged(directory_of(self.settings.log_dir, of) / "v" / name, days)

    def environment(self, of: Endpoint, *, days: float) -> Path:
        directory = self.workshop.environment_of(of, VARIANT)
        aged(directory / "bin" / "python", days)
        os.utime(directory, (NOW - days * DAY, NOW - days * DAY))
        return directory


def aged(path: Path, days: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    os.utime(path, (NOW - days * DAY, NOW - days * DAY))
    return path


def spec(of: Endpoint, instance_id: str, cache_dir: Path) -> InstanceSpec:
    return InstanceSpec(
        instance_id=instance_id,
        account_id=of.account_id,
        endpoint_name=of.name,
        variant_name="v",
        deployment_id="d",
        container_hostname="c",
        argv=("true",),
        environment={},
        base_dir="",
        log_file="",
        startup_timeout_seconds=1,
        cache_dir=str(cache_dir),
    )


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path / "data")
    yield house
    await house.workshop.close()


def gone(*paths: Path) -> Callable[[], bool]:
    return lambda: not any(path.exists() for path in paths)


async def test_logs_of_a_deleted_endpoint_go_and_those_of_its_successor_stay(house: House) -> None:
    old, new = endpoint(created=CREATED - timedelta(days=30)), endpoint()
    await house.store.create(new, {})
    expired = [house.log(old, "i-1", days=8), house.log(old, "i-1", days=9, older=True)]
    recent = house.log(old, "i-2", days=6)
    running = house.log(new, "i-3", days=20)
    replaced = house.log(new, "i-4", days=8)
    house.running = [spec(new, "i-3", house.environment(new, days=0))]
    await house.keeper.sweep(NOW)
    assert gone(*expired, replaced)()
    assert recent.exists()
    assert running.exists()
    await house.keeper.sweep(NOW + 2 * DAY)
    assert gone(directory_of(house.settings.log_dir, old))(), "with its directories"
    assert running.exists()
    await house.store.delete(new)
    house.running = []
    await house.keeper.sweep(NOW + 2 * DAY)
    assert [path.name for path in house.settings.log_dir.iterdir()] == [new.account_id]
    assert gone(house.settings.log_dir / new.account_id / "e")()
    await until(lambda: not list((house.settings.data_dir / "discarded").iterdir()))


async def test_an_endpoint_that_is_created_meanwhile_finds_its_directories(house: House) -> None:
    """Its directory is older than all that is looked at, and empty: a container is about to be started."""
    new = endpoint("new")
    house.log(endpoint("old"), "i-1", days=8)
    directory = directory_of(house.settings.log_dir, new) / "v"
    original = house.store.all_endpoints

    async def create_first() -> tuple[Endpoint, ...]:
        found = await original()
        directory.mkdir(parents=True)
        return found

    house.store.all_endpoints = create_first  # type: ignore[method-assign]
    await house.keeper.sweep(NOW)
    assert directory.is_dir()


async def test_an_environment_is_kept_while_a_variant_uses_it(house: House) -> None:
    serving, creating, deleted = endpoint("a", deployed=DEPLOYED), endpoint("b"), endpoint("c")
    await house.store.create(serving, {})
    await house.store.create(creating, {})
    used, starting, unused = (house.environment(each, days=2) for each in (serving, creating, deleted))
    house.running = [spec(creating, "i-1", starting)]
    await house.keeper.sweep(NOW)
    assert gone(unused)()
    assert used.is_dir()
    assert starting.is_dir()
    house.running = []
    await house.store.delete(serving)
    await house.keeper.sweep(NOW + 3599)
    assert used.is_dir(), "it was in use an hour ago"
    await house.keeper.sweep(NOW + 3600)
    assert gone(used, starting)()


async def test_a_link_in_the_place_of_an_environment_goes_alone(house: House, tmp_path: Path) -> None:
    aged(tmp_path / "victim" / "x", 9)
    environments = house.settings.data_dir / "environments"
    environments.mkdir(parents=True)
    (environments / "0123").symlink_to(tmp_path / "victim")
    os.utime(environments / "0123", (NOW - DAY, NOW - DAY), follow_symlinks=False)
    await house.keeper.sweep(NOW)
    assert not (environments / "0123").is_symlink()
    await until(lambda: not list((house.settings.data_dir / "discarded").iterdir()))
    assert (tmp_path / "victim" / "x").exists()


async def test_uploads_that_nobody_finishes_are_removed(house: House) -> None:
    uploads = house.settings.data_dir / "s3" / "models" / ".sgwtmp" / "multipart" / "9f86d081"
    metadata = house.settings.data_dir / "s3-metadata" / "models" / ".sgwtmp" / "multipart" / "9f86d081"
    for name, days in (("abandoned", 8.0), ("going-on", 8.0), ("new", 6.0)):
        aged(uploads / name / "1", days)
        aged(metadata / name / "1" / "meta" / "etag", days)
    aged(uploads / "going-on" / "2", 1)
    for directory in uploads.iterdir():
        os.utime(directory, (NOW - 8 * DAY, NOW - 8 * DAY))
    objects = [
        aged(house.settings.data_dir / "s3" / "models" / name, 100) for name in ("a/b", "multipart/c/d")
    ]
    await house.keeper.remove_temporary_files(NOW)
    assert {path.name for path in uploads.iterdir()} == {"going-on", "new"}
    assert {path.name for path in metadata.iterdir()} == {"going-on", "new"}
    assert all(path.exists() for path in objects)


async def test_what_one_run_put_away_the_next_removes(house: House) -> None:
    aged(house.settings.data_dir / "discarded" / "i-1" / "model" / "x", 0)
    aged(house.settings.data_dir / "instances" / "i-2" / ".model.abc" / "half", 0)
    aged(house.settings.data_dir / "instances" / "i-3" / "model" / "x", 0)
    house.workshop.discard_all_but({"i-3"})
    assert [path.name for path in (house.settings.data_dir / "instances").iterdir()] == ["i-3"]
    await until(lambda: not list((house.settings.data_dir / "discarded").iterdir()))


async def test_a_failed_endpoint_keeps_the_log_that_says_why(house: House) -> None:
    failed = endpoint(status=EndpointStatus.FAILED)
    await house.store.create(failed, {})
    kept = house.log(failed, "i-1", days=100)
    await house.keeper.sweep(NOW)
    assert kept.exists()
    await house.store.delete(failed)
    await house.keeper.sweep(NOW)
    assert gone(kept)()
