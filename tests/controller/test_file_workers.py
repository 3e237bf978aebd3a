"""Heavy work in processes of its own. A job that lasts is one that reads an archive from a pipe without a writer."""

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from moorage.controller.artifacts import ArtifactError
from moorage.controller.file_workers import FileWorkers, WorkerLost

from .test_artifacts import MIB, file, files_of, tgz


@pytest.fixture
async def workers() -> AsyncIterator[FileWorkers]:
    workers = FileWorkers(niceness=3, parallel=2, most=4)
    yield workers
    await workers.close()


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "endless")
    return tmp_path / "endless"


def unpacking(archive: Path, destination: Path, **limits: int) -> dict[str, Any]:
    return {
        "job": "unpack",
        "archive": str(archive),
        "destination": str(destination),
        "max_bytes": 8 * MIB,
        "keep_free_bytes": 0,
        **limits,
    }


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_an_archive_is_unpacked_for_everyone_to_read(workers: FileWorkers, tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(tgz(file("code/x", b"1", mode=0o700), file("y", mode=0o600)))
    async with workers.worker("a") as worker:
        await worker.run(**unpacking(tmp_path / "a.tar.gz", tmp_path / "i" / "model"))
        await worker.run("make_readable", directory=str(tmp_path / "i"))
    assert files_of(tmp_path / "i" / "model") == {"code/x": b"1", "y": b"x"}
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "i").rglob("*")}
    assert modes == {"model": 0o755, "code": 0o755, "x": 0o744, "y": 0o644}


async def test_errors_come_back_as_they_were(workers: FileWorkers, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"no archive")
    async with workers.worker("a") as worker:
        with pytest.raises(ArtifactError, match="not a valid archive"):
            await worker.run(**unpacking(tmp_path / "a", tmp_path / "model"))
        with pytest.raises(FileExistsError) as caught:
            await worker.run(**unpacking(tmp_path / "a", tmp_path / "a" / "model"))
        assert caught.value.filename == str(tmp_path / "a")
        assert worker.is_ready


async def test_one_account_s_large_archives_do_not_delay_another_account(
    workers: FileWorkers, endless: Path, tmp_path: Path
) -> None:
    (tmp_path / "small").write_bytes(tgz(file("x")))
    large = [
        asyncio.create_task(workers.run("large", **unpacking(endless, tmp_path / f"large-{number}")))
        for number in range(6)
    ]
    await until(lambda: "2 running, 4 waiting" in repr(workers))
    async with asyncio.timeout(20):
        await workers.run("small", **unpacking(tmp_path / "small", tmp_path / "model"))
    assert not any(task.done() for task in large)
    for task in large:
        task.cancel()
    ends = await asyncio.gather(*large, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends)
    assert "0 running, 0 waiting" in repr(workers)
    await workers.run("large", **unpacking(tmp_path / "small", tmp_path / "another"))


async def test_cancelling_a_job_ends_its_process_and_then_nothing_is_written(
    workers: FileWorkers, endless: Path, tmp_path: Path
) -> None:
    job = asyncio.create_task(workers.run("a", **unpacking(endless, tmp_path / "place" / "model")))
    await until(lambda: (tmp_path / "place").exists())
    [child] = children_of(os.getpid())
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert not is_running(child)


async def test_a_process_that_dies_is_told_and_replaced(
    workers: FileWorkers, endless: Path, tmp_path: Path
) -> None:
    job = asyncio.create_task(workers.run("a", **unpacking(endless, tmp_path / "place" / "model")))
    await until(lambda: (tmp_path / "place").exists())
    [child] = children_of(os.getpid())
    os.kill(child, signal.SIGKILL)
    with pytest.raises(WorkerLost, match="killed by signal 9"):
        await job
    await workers.run("a", "make_readable", directory=str(tmp_path / "place"))


async def test_processes_are_nice_and_go_when_they_are_idle(tmp_path: Path) -> None:
    workers = FileWorkers(niceness=3, idle_seconds=0.05)
    async with workers.worker("a") as worker:
        await worker.run("make_readable", directory=str(tmp_path))
        [child] = children_of(os.getpid())
        assert os.getpriority(os.PRIO_PROCESS, child) == os.getpriority(os.PRIO_PROCESS, 0) + 3
    await until(lambda: not is_running(child))
    await workers.run("a", "make_readable", directory=str(tmp_path))
    await workers.close()


PARENT = """
import asyncio, sys
from moorage.controller.file_workers import FileWorkers
arguments = dict(archive=sys.argv[1], destination=sys.argv[2], max_bytes=1, keep_free_bytes=0)
asyncio.run(FileWorkers(niceness=3).run("a", "unpack", **arguments))
"""


async def test_a_process_dies_with_its_parent_in_the_middle_of_a_job(endless: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    command = (sys.executable, "-c", PARENT, str(endless), str(place / "model"))
    parent = await asyncio.create_subprocess_exec(*command)
    await until(place.exists)
    [child] = children_of(parent.pid)
    parent.kill()
    await parent.wait()
    await until(lambda: not is_running(child))


async def test_a_directory_is_removed_and_what_its_links_lead_to_is_not(
    workers: FileWorkers, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "x").touch()
    doomed = tmp_path / "doomed"
    (doomed / "locked" / "deep").mkdir(parents=True)
    (doomed / "locked" / "deep" / "f").touch()
    (doomed / "link").symlink_to(victim)
    (doomed / "locked").chmod(0o500)
    (tmp_path / "also").symlink_to(victim)
    for path in (doomed, doomed, tmp_path / "also"):
        await workers.run("", "remove", path=str(path))
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]
    assert (victim / "x").exists()


def children_of(pid: int) -> list[int]:
    """Those that do the work of files."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found if b"file_jobs" in Path(f"/proc/{each}/cmdline").read_bytes()]


def is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
