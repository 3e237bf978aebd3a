"""What every launcher promises, by the seam in `moorage.launchers.base`."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from moorage.launchers.base import InstanceSpec, InstanceState, InstanceStatus, Launcher
from moorage.launchers.memory import Behaviour, MemoryLauncher
from moorage.launchers.process import ProcessLauncher
from moorage.launchers.remote import LauncherServer, RemoteLauncher

from ..launchers.containers import (
    HEALTHY,
    as_generator,
    leader_of,
    process_launcher,
    reaches,
    spec_for,
    until,
)

S = InstanceStatus

SCRIPTS: dict[Behaviour, str] = {
    "healthy": HEALTHY,
    "fail": "raise SystemExit('no model here')",
    "hold": "import signal; signal.pause()",
}


@dataclass
class Harness:
    """A launcher under test, and how to make its containers behave."""

    launcher: Launcher
    directory: Path
    kill: Callable[[InstanceSpec], None]

    def spec(self, kind: Behaviour = "healthy") -> InstanceSpec:
        return spec_for(self.directory, SCRIPTS[kind], environment={"KIND": kind})


@pytest.fixture(params=["memory", "process", "remote"])
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    if request.param == "memory":
        memory = MemoryLauncher(behaviour=behaviour_of)
        yield Harness(memory, tmp_path, lambda spec: memory.die(spec.instance_id))
        return
    processes: ProcessLauncher = process_launcher(tmp_path)

    def kill(spec: InstanceSpec) -> None:
        os.kill(leader_of(spec, processes.marker), signal.SIGKILL)

    if request.param == "process":
        yield Harness(processes, tmp_path, kill)
    else:
        socket = tmp_path / "run" / "l.sock"
        server = LauncherServer(processes, socket)
        await server.start()
        remote = RemoteLauncher(socket)
        yield Harness(remote, tmp_path, kill)
        await remote.close()
        await server.close()
    await processes.close(hurry=True)


def behaviour_of(spec: InstanceSpec) -> Behaviour:
    kinds: dict[str, Behaviour] = {"healthy": "healthy", "fail": "fail", "hold": "hold"}
    return kinds[spec.environment["KIND"]]


async def test_a_watch_begins_with_the_empty_list_when_there_is_nothing(harness: Harness) -> None:
    async with asyncio.timeout(10), aclosing(as_generator(harness.launcher.watch())) as watch:
        assert list(await anext(watch)) == []


async def test_a_launched_instance_comes_into_service_and_says_where(harness: Harness) -> None:
    spec = harness.spec()
    await harness.launcher.launch(spec)
    state = await reaches(harness.launcher, spec.instance_id, S.IN_SERVICE)
    assert state.spec == spec
    assert (state.host, state.generation, state.restarts) == ("127.0.0.1", 1, 0)
    assert 0 < state.port < 65536
    assert state.failure is None


async def test_a_launched_instance_is_in_the_list_from_then_on(harness: Harness) -> None:
    spec = harness.spec("hold")
    await harness.launcher.launch(spec)
    async with asyncio.timeout(10), aclosing(as_generator(harness.launcher.watch())) as watch:
        assert [(state.spec, state.status) for state in await anext(watch)] == [(spec, S.STARTING)]


async def test_launching_twice_starts_one(harness: Harness) -> None:
    spec = harness.spec()
    await harness.launcher.launch(spec)
    await reaches(harness.launcher, spec.instance_id, S.IN_SERVICE)
    await harness.launcher.launch(spec)
    (state,) = (await until(harness.launcher, lambda latest: bool(latest))).values()
    assert (state.status, state.generation) == (S.IN_SERVICE, 1)


async def test_an_instance_that_dies_at_its_start_fails_with_a_reason(harness: Harness) -> None:
    spec = harness.spec("fail")
    await harness.launcher.launch(spec)
    state = await reaches(harness.launcher, spec.instance_id, S.FAILED)
    assert state.failure is not None
    assert '"container-1"' in state.failure
    assert "exited with status 1" in state.failure
    assert state.restarts == 0


async def test_a_failed_instance_can_be_stopped(harness: Harness) -> None:
    spec = harness.spec("fail")
    await harness.launcher.launch(spec)
    await reaches(harness.launcher, spec.instance_id, S.FAILED)
    await harness.launcher.stop(spec.instance_id)
    assert await until(harness.launcher, lambda latest: not latest) == {}


async def test_keep_trying_restarts_also_what_never_was_healthy(harness: Harness) -> None:
    if isinstance(harness.launcher, MemoryLauncher):
        pytest.skip("its backoff ends when the test says so")
    spec = replace(harness.spec("fail"), keep_trying=True)
    await harness.launcher.launch(spec)
    state = await reaches(harness.launcher, spec.instance_id, S.RESTARTING, generation=2)
    assert state.restarts >= 2
    assert state.failure is not None


async def test_an_instance_that_dies_is_started_again(harness: Harness) -> None:
    spec = harness.spec()
    await harness.launcher.launch(spec)
    await reaches(harness.launcher, spec.instance_id, S.IN_SERVICE)
    harness.kill(spec)
    state = await reaches(harness.launcher, spec.instance_id, S.IN_SERVICE, generation=2)
    assert (state.generation, state.restarts) == (2, 1)


async def test_stopping_reports_it_once_and_forgets_it(harness: Harness) -> None:
    spec = harness.spec()
    await harness.launcher.launch(spec)
    await reaches(harness.launcher, spec.instance_id, S.IN_SERVICE)
    async with asyncio.timeout(20), aclosing(as_generator(harness.launcher.watch())) as watch:
        assert [state.status for state in await anext(watch)] == [S.IN_SERVICE]
        await harness.launcher.stop(spec.instance_id)
        seen = [state.status async for states in until_stopped(watch) for state in states]
    assert seen[-1] is S.STOPPED
    assert seen.count(S.STOPPED) == 1
    assert await until(harness.launcher, lambda latest: not latest) == {}


async def until_stopped(
    watch: AsyncIterator[Sequence[InstanceState]],
) -> AsyncIterator[Sequence[InstanceState]]:
    async for states in watch:
        yield states
        if any(state.status is S.STOPPED for state in states):
            return


async def test_stopping_what_is_not_there_does_nothing(harness: Harness) -> None:
    await harness.launcher.stop("i-unknown")
    await harness.launcher.stop("i-unknown", hurry=True)


async def test_an_instance_can_be_stopped_while_it_starts(harness: Harness) -> None:
    spec = harness.spec("hold")
    await harness.launcher.launch(spec)
    await reaches(harness.launcher, spec.instance_id, S.STARTING)
    await asyncio.gather(
        harness.launcher.stop(spec.instance_id), harness.launcher.stop(spec.instance_id, hurry=True)
    )
    assert await until(harness.launcher, lambda latest: not latest) == {}


async def test_an_id_can_be_used_again_after_it_stopped(harness: Harness) -> None:
    spec = harness.spec()
    await harness.launcher.launch(spec)
    await harness.launcher.stop(spec.instance_id, hurry=True)
    await harness.launcher.launch(spec)
    state = await reaches(harness.launcher, spec.instance_id, S.IN_SERVICE)
    assert state.generation == 1


async def test_a_later_watcher_sees_every_instance_at_once(harness: Harness) -> None:
    specs = [harness.spec() for _ in range(3)]
    for spec in specs:
        await harness.launcher.launch(spec)
    await until(
        harness.launcher,
        lambda latest: [state.status for state in latest.values()] == [S.IN_SERVICE] * 3,
    )
    async with asyncio.timeout(10), aclosing(as_generator(harness.launcher.watch())) as watch:
        first = await anext(watch)
    assert {state.spec.instance_id for state in first} == {spec.instance_id for spec in specs}
    assert {state.status for state in first} == {S.IN_SERVICE}
