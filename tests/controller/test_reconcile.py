"""The reconciler with a launcher whose instances do what the test says, a store in memory, and a real gateway's
routing table at the other end of a real feed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Unpack

import pytest

from moorage.config import Settings
from moorage.controller.feed import Feed
from moorage.controller.fleet import InstanceWorkshop
from moorage.controller.reconcile import Reconciler
from moorage.gateway.feed import Report, follow
from moorage.launchers.base import InstanceStatus
from moorage.launchers.memory import MemoryLauncher
from moorage.resources import Endpoint, EndpointConfig, EndpointStatus, Model
from moorage.routing import selection
from moorage.routing.table import EndpointRoute, RoutingTable
from moorage.storage.base import EndpointChanges, R
from moorage.storage.failures import DatabaseUnavailable
from moorage.storage.memory import MemoryResourceStore
from moorage.storage.objects import Objects
from tests.async_inference.s3 import AnyRole

ACCOUNT = "000000000000"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class RecordedBacklog:
    """What the reconciler asked of asynchronous inference."""

    def __init__(self) -> None:
        self.failed: list[tuple[str, str, str]] = []
        self.announced: list[tuple[str, tuple[str, ...]]] = []

    async def fail_all(self, account_id: str, endpoint_name: str, reason: str) -> None:
        self.failed.append((account_id, endpoint_name, reason))

    async def announce(self, account_id: str, topic_arns: Collection[str]) -> None:
        self.announced.append((account_id, tuple(topic_arns)))


class RecordedStore(MemoryResourceStore):
    """Counts what is written, and fails when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.transitions = 0
        self.fault: Exception | None = None

    async def get(self, kind: type[R], account_id: str, name: str) -> R | None:
        if self.fault is not None:
            raise self.fault
        return await super().get(kind, account_id, name)

    async def transition(
        self, endpoint: Endpoint, expected: Collection[EndpointStatus], **changes: Unpack[EndpointChanges]
    ) -> Endpoint | None:
        self.transitions += 1
        return await super().transition(endpoint, expected, **changes)


class World:
    """What outlives a controller: the store, the launcher, a gateway, the data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.settings = Settings(data_dir=data_dir, drain_timeout_seconds=20)
        self.settings.run_dir.mkdir(parents=True)
        self.store = RecordedStore()
        self.s3 = "http://127.0.0.1:9"
        self.pauses: list[int] = []
        """Before each retry so far: the failures in a row."""
        self.pause_seconds = 0.01
        self.launcher = MemoryLauncher()
        self.backlog = RecordedBacklog()
        self.reports: asyncio.Queue[Report] = asyncio.Queue()
        self.table = RoutingTable(on_drained=lambda each: self.reports.put_nowait({"drained": each}))
        self.reconciler: Reconciler

    @asynccontextmanager
    async def controller(self) -> AsyncIterator[None]:
        feed = Feed()
        objects = Objects(endpoint=self.s3, region="r", authority=AnyRole())
        workshop = InstanceWorkshop(settings=self.settings, objects=objects)
        self.reconciler = Reconciler(
            settings=self.settings,
            store=self.store,
            launcher=self.launcher,
            feed=feed,
            workshop=workshop,
            backlog=self.backlog,
            pause=self.pause,
        )
        await feed.listen(self.settings.feed_socket)
        started = asyncio.Event()
        task = asyncio.create_task(self.reconciler.run(started.set))
        try:
            await started.wait()
            await until(lambda: "1 gateways" in repr(feed))
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await workshop.close()
            feed.close()

    def pause(self, failures: int, waiting: int, chance: float) -> float:
        self.pauses.append(failures)
        return self.pause_seconds

    async def configure(
        self,
        name: str,
        *,
        instances: int = 1,
        image: str = "moorage/modelhost",
        model: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        model = {"ModelName": name, **(model or {"PrimaryContainer": {"Image": image}})}
        variant = {"VariantName": "AllTraffic", "ModelName": name, "InitialInstanceCount": instances}
        common: dict[str, Any] = {"account_id": ACCOUNT, "name": name, "creation_time": NOW}
        await self.store.create(Model(arn=f"model/{name}", definition=model, **common), {})
        definition = {"EndpointConfigName": name, "ProductionVariants": [variant], **(config or {})}
        await self.store.create(EndpointConfig(arn=f"config/{name}", definition=definition, **common), {})

    async def create(self, name: str, config: str) -> None:
        endpoint = Endpoint(
            account_id=ACCOUNT,
            name=name,
            arn=f"endpoint/{name}",
            status=EndpointStatus.CREATING,
            endpoint_config_name=config,
            deployment_id=None,
            target_config_name=config,
            target_deployment_id="first",
            creation_time=NOW,
            last_modified_time=NOW,
            failure_reason=None,
            deployed=None,
            definition={},
        )
        await self.store.create(endpoint, {})
        self.reconciler.wake(ACCOUNT, name)

    async def change(self, name: str, **changes: Any) -> None:
        endpoint = await self.endpoint(name)
        assert endpoint is not None
        assert await self.store.transition(endpoint, list(EndpointStatus), **changes) is not None
        self.reconciler.wake(ACCOUNT, name)

    async def endpoint(self, name: str) -> Endpoint | None:
        return await self.store.get(Endpoint, ACCOUNT, name)

    async def reaches(self, name: str, status: EndpointStatus) -> Endpoint:
        async with asyncio.timeout(20):
            while (endpoint := await self.endpoint(name)) is None or endpoint.status is not status:
                await asyncio.sleep(0.01)
        return endpoint

    def route(self, name: str) -> EndpointRoute:
        route = self.table.find(ACCOUNT, name)
        assert route is not None
        return route

    def reachable(self, name: str) -> set[str]:
        return {each.instance_id for variant in self.route(name).variants for each in variant.instances}


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path / "data")
    feed = follow(world.settings.feed_socket, world.table, world.reports, asyncio.Event())
    async with AsyncExitStack() as stack:
        gateway = asyncio.create_task(feed)
        stack.callback(gateway.cancel)
        yield world


async def test_an_endpoint_is_reachable_before_it_says_in_service(world: World) -> None:
    async with world.controller():
        await world.configure("a", instances=2)
        await world.create("e", "a")
        endpoint = await world.reaches("e", EndpointStatus.IN_SERVICE)
        assert len(world.reachable("e")) == 2
        assert endpoint.deployment_id == "first"
        assert endpoint.target_deployment_id is None
        assert world.reconciler.instance_counts(ACCOUNT, "e") == {"AllTraffic": 2}


async def test_it_stays_creating_until_every_instance_is_healthy(world: World) -> None:
    world.launcher.behaviour = lambda spec: "hold"
    async with world.controller():
        await world.configure("a", instances=2)
        await world.create("e", "a")
        await until(lambda: len(world.launcher.launched) == 2)
        first, second = (spec.instance_id for spec in world.launcher.launched)
        world.launcher.become_healthy(first)
        await until(lambda: world.reconciler.instance_counts(ACCOUNT, "e") == {"AllTraffic": 1})
        assert (await world.endpoint("e")).status is EndpointStatus.CREATING  # type: ignore[union-attr]
        assert world.table.find(ACCOUNT, "e") is None
        world.launcher.become_healthy(second)
        await world.reaches("e", EndpointStatus.IN_SERVICE)


async def test_one_failed_instance_fails_the_creation_and_stops_the_others(world: World) -> None:
    async with world.controller():
        failing = iter([False, True, False])
        world.launcher.behaviour = lambda spec: "fail" if next(failing) else "healthy"
        await world.configure("a", instances=3)
        await world.create("e", "a")
        endpoint = await world.reaches("e", EndpointStatus.FAILED)
        assert endpoint.failure_reason
        await until(lambda: not world.launcher.states())
        await until(lambda: not list((world.settings.data_dir / "instances").iterdir()))


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ({"Containers": [{"Image": "a"}, {"Image": "b"}]}, "2 containers"),
        ({"PrimaryContainer": {"Image": "a", "Mode": "MultiModel"}}, "multi-model"),
        ({"PrimaryContainer": {"ModelPackageName": "a"}}, "model package"),
    ],
)
async def test_models_that_cannot_be_run_yet_fail_with_a_reason(
    world: World, model: dict[str, Any], says: str
) -> None:
    async with world.controller():
        await world.configure("a", model=model)
        await world.create("e", "a")
        endpoint = await world.reaches("e", EndpointStatus.FAILED)
        assert says in (endpoint.failure_reason or "")
        assert not world.launcher.launched


async def test_an_update_drains_the_old_instances_before_it_stops_them(world: World) -> None:
    async with world.controller():
        await world.configure("a")
        await world.configure("b")
        await world.create("e", "a")
        await world.reaches("e", EndpointStatus.IN_SERVICE)
        busy = selection.reserve(world.route("e").variants[0])
        assert busy is not None
        await world.change(
            "e", status=EndpointStatus.UPDATING, target_config_name="b", target_deployment_id="second"
        )
        endpoint = await world.reaches("e", EndpointStatus.IN_SERVICE)
        assert endpoint.endpoint_config_name == "b"
        assert busy.instance_id not in world.reachable("e")
        assert busy.instance_id not in world.launcher.stopped, "an invocation is still inside it"
        world.table.release(busy)
        await until(lambda: world.launcher.stopped == [busy.instance_id])


async def test_a_failed_update_leaves_the_old_deployment(world: World) -> None:
    async with world.controller():
        await world.configure("a")
        await world.configure("b", image="nobody/knows:it")
        await world.create("e", "a")
        await world.reaches("e", EndpointStatus.IN_SERVICE)
        before = world.reachable("e")
        await world.change(
            "e", status=EndpointStatus.UPDATING, target_config_name="b", target_deployment_id="second"
        )
        endpoint = await world.reaches("e", EndpointStatus.IN_SERVICE)
        assert "nobody/knows:it" in (endpoint.failure_reason or "")
        assert (endpoint.endpoint_config_name, world.reachable("e")) == ("a", before)


async def test_an_instance_that_dies_leaves_the_route_and_comes_back_to_it(world: World) -> None:
    async with world.controller():
        await world.configure("a", instances=2)
        await world.create("e", "a")
        await world.reaches("e", EndpointStatus.IN_SERVICE)
        world.launcher.behaviour = lambda spec: "hold"
        victim = next(iter(world.reachable("e")))
        world.launcher.die(victim)
        await until(lambda: victim not in world.reachable("e"))
        assert len(world.reachable("e")) == 1
        world.launcher.become_healthy(victim)
        await until(lambda: victim in world.reachable("e"))


async def test_a_controller_takes_over_the_instances_of_the_one_before(world: World) -> None:
    async with world.controller():
        await world.configure("a", instances=2)
        await world.create("e", "a")
        await world.reaches("e", EndpointStatus.IN_SERVICE)
    before = world.reachable("e")
    assert len(before) == 2, "the gateway keeps its table while the controller is away"
    async with world.controller():
        await world.reaches("e", EndpointStatus.IN_SERVICE)
        assert world.reachable("e") == before
        assert len(world.launcher.launched) == 2


async def test_a_controller_makes_up_for_what_was_lost_meanwhile(world: World) -> None:
    async with world.controller():
        await world.configure("a", instances=2)
        await world.create("e", "a")
        await world.reaches("e", EndpointStatus.IN_SERVICE)
    lost = world.launcher.launched[0].instance_id
    await world.launcher.stop(lost)
    world.launcher.behaviour = lambda spec: "hold"
    async with world.controller():
        await world.reaches("e", EndpointStatus.SYSTEM_UPDATING)
        await until(lambda: len(world.launcher.launched) == 3)
        assert world.launcher.launched[2].keep_trying
        await until(lambda: len(world.reachable("e")) == 1)
        assert world.route("e").provisioning
        world.launcher.become_healthy(world.launcher.launched[2].instance_id)
        await world.reaches("e", EndpointStatus.IN_SERVICE)
        await until(lambda: len(world.reachable("e")) == 2 and not world.route("e").provisioning)


async def test_a_controller_stops_what_belongs_to_nothing(world: World) -> None:
    async with world.controller():
        await world.configure("a")
        await world.create("e", "a")
        await world.reaches("e", EndpointStatus.IN_SERVICE)
    endpoint = await world.endpoint("e")
    assert endpoint is not None
    await world.store.delete(endpoint)
    async with world.controller():
        await until(lambda: not world.launcher.states())
        await until(lambda: world.table.find(ACCOUNT, "e") is None)


async def test_deletion_drains_stops_and_forgets(world: World) -> None:
    async with world.controller():
        await world.configure("a")
        await world.create("e", "a")
        await world.reaches("e", EndpointStatus.IN_SERVICE)
        busy = selection.reserve(world.route("e").variants[0])
        assert busy is not None
        await world.change("e", status=EndpointStatus.DELETING)
        await until(lambda: world.table.find(ACCOUNT, "e") is None)
        assert world.launcher.state(busy.instance_id).status is InstanceStatus.IN_SERVICE
        world.table.release(busy)
        await until(lambda: not world.launcher.states())
        async with asyncio.timeout(20):
            while await world.endpoint("e") is not None:
                await asyncio.sleep(0.01)
    [(_, name, reason)] = world.backlog.failed
    assert (name, reason) == ("e", "Endpoint e was deleted before this invocation was complete.")


async def lose(world: World, image: str = "nobody/knows:it") -> None:
    """An endpoint `e` in service, all of whose instances are gone; its deployment is of an unknown image."""
    async with world.controller():
        await world.configure("a")
        await world.create("e", "a")
        endpoint = await world.reaches("e", EndpointStatus.IN_SERVICE)
    assert endpoint.deployed is not None
    container = {"Image": image, "ModelDataUrl": "s3://b/m.tar.gz"}
    deployed = {**endpoint.deployed, "Models": {"a": {"ModelName": "a", "PrimaryContainer": container}}}
    await world.store.transition(endpoint, list(EndpointStatus), deployed=deployed)
    for state in world.launcher.states():
        await world.launcher.stop(state.spec.instance_id)
    world.store.transitions = 0
    world.pauses.clear()


async def test_what_cannot_be_restored_is_written_and_logged_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await lose(world)
    async with world.controller():
        await until(lambda: len(world.pauses) >= 5)
        endpoint = await world.endpoint("e")
        assert endpoint is not None
        assert endpoint.status is EndpointStatus.SYSTEM_UPDATING
        assert "nobody/knows:it" in (endpoint.failure_reason or "")
    assert world.pauses[:5] == [1, 2, 3, 4, 5]
    assert world.store.transitions == 2, "that it is being restored, and why it is not"
    assert len([each for each in caplog.records if "cannot be restored yet" in each.message]) == 1
    async with world.controller():
        await until(lambda: len(world.pauses) >= 10)
    assert world.store.transitions == 2, "nor does another controller repeat it"


async def test_a_change_of_the_row_ends_the_pause(world: World) -> None:
    await lose(world)
    world.pause_seconds = 3600.0
    async with world.controller():
        await until(lambda: world.pauses == [1])
        await world.change("e", status=EndpointStatus.DELETING)
        async with asyncio.timeout(20):
            while await world.endpoint("e") is not None:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("fault", "times"),
    [(RuntimeError("a fault of ours"), 1), (DatabaseUnavailable("away, as the database has logged"), 0)],
)
async def test_a_fault_of_every_step_is_logged_once(
    world: World, caplog: pytest.LogCaptureFixture, fault: Exception, times: int
) -> None:
    await lose(world)
    async with world.controller():
        await until(lambda: world.pauses)
        caplog.clear()
        world.store.fault = fault
        before = len(world.pauses)
        await until(lambda: len(world.pauses) >= before + 5)
        world.store.fault = None
    records = [each for each in caplog.records if "a step failed" in each.message]
    assert len(records) == times
    assert all("a fault of ours" in each.message and each.exc_info for each in records)


async def test_a_deletion_ends_the_work_that_it_makes_needless(world: World) -> None:
    """The S3 accepts connections and does not answer."""
    await lose(world, image="moorage/modelhost")
    connected = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    world.s3 = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, world.controller():
        async with asyncio.timeout(20):
            await connected.wait()
        await world.change("e", status=EndpointStatus.DELETING)
        async with asyncio.timeout(20):
            while await world.endpoint("e") is not None:
                await asyncio.sleep(0.01)
        assert list((world.settings.data_dir / "instances").iterdir()) == []
    assert world.pauses == []


async def test_topics_are_told_of_an_endpoint_in_service(world: World) -> None:
    topic = "arn:aws:sns:us-east-1:000000000000:done"
    output = {
        "S3OutputPath": "s3://b/out",
        "NotificationConfig": {"SuccessTopic": topic, "ErrorTopic": topic},
    }
    config = {"OutputConfig": output, "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 7}}
    async with world.controller():
        await world.configure("a", config={"AsyncInferenceConfig": config})
        await world.create("e", "a")
        await world.reaches("e", EndpointStatus.IN_SERVICE)
        assert world.route("e").asynchronous
        assert world.route("e").max_concurrency == 7
        plan = world.reconciler.deployed(ACCOUNT, "e")
        assert plan is not None
        assert plan.async_inference_config == config
        assert world.reconciler.deployed(ACCOUNT, "other") is None
    assert world.backlog.announced == [(ACCOUNT, (topic,))]


async def test_a_lost_launcher_is_connected_again(world: World) -> None:
    async with world.controller():
        await world.configure("a")
        await world.create("e", "a")
        await world.reaches("e", EndpointStatus.IN_SERVICE)
        world.launcher._board.close()  # what a launcher that goes away looks like
        world.launcher._board = type(world.launcher._board)()
        await until(lambda: len(world.launcher.launched) == 2)
        await world.reaches("e", EndpointStatus.IN_SERVICE)
