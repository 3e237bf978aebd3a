"""Processes that do heavy work on files for the controller: a few, shared fairly by the accounts.

What asyncio's own pool of threads does (metrics, look-ups of names, small reads) never waits for an archive to be
unpacked, nor does the interpreter's lock. Whose turn it is says `fair_slots`, what the processes do `file_jobs`.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import moorage
from moorage.controller.artifacts import ArtifactError
from moorage.controller.fair_slots import FairSlots

_LEAST_PARALLEL: Final = 4
"""Some of the work waits for a disk or for an S3, not for a processor."""
_MOST_PROCESSES: Final = 16
"""Some 12 MB each."""
_IDLE_SECONDS: Final = 30.0
"""How long a process that has nothing to do is kept: another would take 40 ms to start."""
_PROGRAM: Final = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from moorage.controller import file_jobs
file_jobs.main()
"""
_LIBRARY: Final = str(Path(moorage.__file__).parent.parent)


class WorkerLost(Exception):
    """The process that did the work could not be started, or ended in the middle of it."""


class FileWorkers:
    """Runs jobs of `file_jobs` in processes of low priority.

    `parallel` is how many there are at once, except that each account has one: then up to `most`. `niceness` is added
    to our own.
    """

    def __init__(
        self,
        *,
        niceness: int,
        parallel: int | None = None,
        most: int | None = None,
        idle_seconds: float = _IDLE_SECONDS,
    ) -> None:
        parallel = parallel or max(_LEAST_PARALLEL, len(os.sched_getaffinity(0)))
        self._slots: FairSlots[_Turn] = FairSlots(
            parallel=parallel, most=most or max(parallel, _MOST_PROCESSES)
        )
        self._niceness = niceness
        self._idle_seconds = idle_seconds
        self._idle: dict[FileWorker, asyncio.TimerHandle] = {}
        self._endings: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<FileWorkers {self._slots!r} idle={len(self._idle)}>"

    async def run(self, account_id: str, job: str, **arguments: Any) -> None:
        """One job in its turn. Raises as `FileWorker.run` does."""
        async with self.worker(account_id) as worker:
            await worker.run(job, **arguments)

    @asynccontextmanager
    async def worker(self, account_id: str) -> AsyncIterator["FileWorker"]:
        """A process for several jobs, in the account's turn. Cancelling a job kills the process, and so ends the job.

        Raises:
            WorkerLost: there is no process to be had.
        """
        await self._turn(account_id)
        try:
            worker = self._idle_worker() or await FileWorker.start(self._niceness)
            try:
                yield worker
            finally:
                if worker.is_ready:
                    loop = asyncio.get_running_loop()
                    self._idle[worker] = loop.call_later(self._idle_seconds, self._end, worker)
                else:
                    await asyncio.shield(self._end(worker))  # from now on nothing is written any more
        finally:
            self._slots.finish(account_id)
            self._start()

    async def close(self) -> None:
        """End the processes that are idle; no job may be running."""
        for worker in list(self._idle):
            self._end(worker)
        if self._endings:
            await asyncio.wait(self._endings)

    async def _turn(self, account_id: str) -> None:
        turn = _Turn()
        self._slots.add(account_id, turn)
        self._start()
        try:
            await turn.come.wait()
        except asyncio.CancelledError:
            if turn.come.is_set():
                self._slots.finish(account_id)
            else:
                self._slots.give_up(account_id, turn)
            self._start()
            raise

    def _start(self) -> None:
        for turn in self._slots.start():
            turn.come.set()

    def _idle_worker(self) -> "FileWorker | None":
        while self._idle:
            worker, timer = self._idle.popitem()
            timer.cancel()
            if worker.is_ready:
                return worker
            self._end(worker)
        return None

    def _end(self, worker: "FileWorker") -> "asyncio.Task[None]":
        timer = self._idle.pop(worker, None)
        if timer is not None:
            timer.cancel()
        ending = asyncio.get_running_loop().create_task(worker.kill(), name="end a file worker")
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        return ending


class _Turn:
    """A place in the queue of an account."""

    def __init__(self) -> None:
        self.come = asyncio.Event()


class FileWorker:
    """One process, for one job at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._busy = False

    def __repr__(self) -> str:
        return f"<FileWorker pid={self._process.pid} busy={self._busy}>"

    @classmethod
    async def start(cls, niceness: int) -> "FileWorker":
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-X", "utf8", "-c", _PROGRAM, _LIBRARY),
                *(str(os.getpid()), str(niceness)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise WorkerLost(f"no process can be started for it ({error})") from error
        return cls(process)

    @property
    def is_ready(self) -> bool:
        """Whether it can take a job: not when one was cancelled in the middle."""
        return not self._busy and self._process.returncode is None

    async def run(self, job: str, **arguments: Any) -> None:
        """Do one job of `file_jobs`, whose arguments these are.

        Raises:
            ArtifactError, OSError: as the job does.
            WorkerLost: the process ended before the job did.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._busy = True
        line = b""
        with suppress(ConnectionError):
            self._process.stdin.write(json.dumps({"job": job, **arguments}).encode() + b"\n")
            line = await self._process.stdout.readline()
        if not line:
            status = await self._process.wait()
            how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
            raise WorkerLost(f"the process that did it {how}")
        self._busy = False
        reply = json.loads(line)
        if "artifact_error" in reply:
            raise ArtifactError(reply["artifact_error"])
        if "os_error" in reply:
            raise OSError(*reply["os_error"])

    async def kill(self) -> None:
        """End it now, whatever it does; returns when it is gone."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
