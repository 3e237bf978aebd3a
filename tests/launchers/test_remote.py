"""A launcher in another process: what is special about the distance."""

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from moorage.launchers.base import InstanceState, InstanceStatus, LauncherError, LauncherUnavailable
from moorage.launchers.memory import MemoryLauncher
from moorage.launchers.remote import (
    LauncherServer,
    RemoteLauncher,
    decode_spec,
    decode_state,
    encode_spec,
    encode_state,
)

from .containers import as_generator, process_launcher, reaches, spec_for, until

S = InstanceStatus


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LauncherServer]:
    server = LauncherServer(MemoryLauncher(), tmp_path / "run" / "l.sock")
    await server.start()
    yield server
    await server.close()


def test_a_state_survives_the_journey(tmp_path: Path) -> None:
    spec = spec_for(tmp_path, environment={"A": "ü\n"}, keep_trying=True)
    state = InstanceState(
        spec=spec,
        status=S.RESTARTING,
        host="h",
        port=1,
        generation=2,
        restarts=3,
        failure="f",
        log_tail=("a",),
    )
    assert decode_spec(encode_spec(spec)) == spec
    assert decode_state(encode_state(state)) == state


def test_only_its_user_can_reach_the_socket(server: LauncherServer, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "run" / "l.sock").stat().st_mode) == 0o600


async def test_a_new_client_finds_the_running_instances(tmp_path: Path) -> None:
    processes = process_launcher(tmp_path)
    server = LauncherServer(processes, tmp_path / "run" / "l.sock")
    await server.start()
    spec = spec_for(tmp_path)
    first = RemoteLauncher(tmp_path / "run" / "l.sock")
    await first.launch(spec)
    before = await reaches(first, spec.instance_id, S.IN_SERVICE)
    await first.close()
    second = RemoteLauncher(tmp_path / "run" / "l.sock")
    (after,) = (await until(second, lambda latest: True)).values()
    assert after == before
    await second.stop(spec.instance_id, hurry=True)
    await second.close()
    await server.close()
    await processes.close()


async def test_a_stop_goes_on_when_its_client_is_gone(tmp_path: Path) -> None:
    processes = process_launcher(tmp_path, stop_timeout_seconds=0.3)
    server = LauncherServer(processes, tmp_path / "run" / "l.sock")
    await server.start()
    ignoring = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: signal.pause()"
    spec = spec_for(tmp_path, ignoring)
    client = RemoteLauncher(tmp_path / "run" / "l.sock")
    await client.launch(spec)
    stop = asyncio.create_task(client.stop(spec.instance_id))
    await reaches(processes, spec.instance_id, S.STOPPING)
    await client.close()
    with pytest.raises(LauncherUnavailable):
        await stop
    await until(processes, lambda latest: all(state.status is S.STOPPED for state in latest.values()))
    await server.close()
    await processes.close()


async def test_without_a_server_every_method_says_so(tmp_path: Path) -> None:
    remote = RemoteLauncher(tmp_path / "nobody.sock")
    with pytest.raises(LauncherUnavailable, match=r"nobody\.sock"):
        await remote.launch(spec_for(tmp_path))
    with pytest.raises(LauncherUnavailable):
        await anext(as_generator(remote.watch()))


async def test_a_watch_ends_with_an_exception_when_the_server_goes_away(
    server: LauncherServer, tmp_path: Path
) -> None:
    remote = RemoteLauncher(tmp_path / "run" / "l.sock")
    async with aclosing(as_generator(remote.watch())) as watch:
        assert await anext(watch) == ()
        await server.close()
        with pytest.raises(LauncherUnavailable, match="went away"):
            await anext(watch)


async def test_a_watch_ends_quietly_when_the_launcher_is_closed(tmp_path: Path) -> None:
    memory = MemoryLauncher()
    server = LauncherServer(memory, tmp_path / "run" / "l.sock")
    await server.start()
    remote = RemoteLauncher(tmp_path / "run" / "l.sock")
    async with aclosing(as_generator(remote.watch())) as watch:
        await anext(watch)
        await memory.close()
        assert [states async for states in watch] == []
    await server.close()


async def test_the_client_connects_anew_after_the_server_came_back(
    server: LauncherServer, tmp_path: Path
) -> None:
    remote = RemoteLauncher(tmp_path / "run" / "l.sock")
    await remote.launch(spec_for(tmp_path))
    await server.close()
    with pytest.raises(LauncherUnavailable):
        await remote.launch(spec_for(tmp_path))
    await server.start()
    await remote.launch(spec_for(tmp_path))
    await remote.close()


async def test_a_refusal_comes_back_as_an_error(tmp_path: Path) -> None:
    memory = MemoryLauncher()
    server = LauncherServer(memory, tmp_path / "run" / "l.sock")
    await server.start()
    await memory.close()
    remote = RemoteLauncher(tmp_path / "run" / "l.sock")
    with pytest.raises(LauncherError, match="shutting down"):
        await remote.launch(spec_for(tmp_path))
    await remote.close()
    await server.close()


async def test_a_thousand_instances_fit_into_the_first_list(server: LauncherServer, tmp_path: Path) -> None:
    remote = RemoteLauncher(tmp_path / "run" / "l.sock")
    environment = {f"VARIABLE_{n}": "x" * 300 for n in range(10)}
    await asyncio.gather(*(remote.launch(spec_for(tmp_path, environment=environment)) for _ in range(1000)))
    async with aclosing(as_generator(remote.watch())) as watch:
        assert len(await anext(watch)) == 1000
    await remote.close()
