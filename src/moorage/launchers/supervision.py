"""One instance of the process launcher: a task that walks through its lives, by the rules of `lifecycle`."""

import asyncio
import logging
import math
import os
import shlex
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from moorage.launchers import failure, lifecycle, procfs
from moorage.launchers.base import InstanceSpec, InstanceState, InstanceStatus
from moorage.launchers.census import in_thread
from moorage.launchers.cgroups import Cgroup
from moorage.launchers.health_check import HealthCheck
from moorage.launchers.isolation import Network
from moorage.launchers.leader import CannotStart, Leader, start_leader
from moorage.launchers.lifecycle import PingOutcome
from moorage.launchers.networks import Place

if TYPE_CHECKING:
    from moorage.launchers.process import ProcessLauncher

_log = logging.getLogger(__name__)

_HURRIED_GRACE_SECONDS: Final = 0.1
_START_GRACE_SECONDS: Final = 1.0
_CLEARING_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Death:
    """How a life ended: `what` is None if it was asked to end."""

    what: str | None = None
    healthy_seconds: float | None = None
    log_tail: tuple[str, ...] = ()


class Instance:
    """One instance through all its lives, until it is stopped."""

    def __init__(self, launcher: "ProcessLauncher", spec: InstanceSpec) -> None:
        self.spec = spec
        self.log = launcher.logs.log(spec.log_file)
        self.leader_pid = 0
        self._ever_healthy = False
        self._launcher = launcher
        self._state = InstanceState(
            spec=spec, status=InstanceStatus.STARTING, host=launcher.host, generation=1
        )
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._expelled = asyncio.Event()
        self._expelled_for = ""
        self._cgroup: Cgroup | None = None
        self._began = 0
        launcher.board.post(self._state)
        self.task = asyncio.create_task(self._run(), name=f"instance-{spec.instance_id}")

    def __repr__(self) -> str:
        return f"<Instance {self.spec.instance_id} {self._state.status} leader={self.leader_pid}>"

    @property
    def is_stopping(self) -> bool:
        return self._stop.is_set()

    def ask_to_stop(self, *, hurry: bool) -> None:
        if hurry:
            self._hurry.set()
        self._stop.set()

    def expel(self, reason: str) -> None:
        """End this start of the container; it is started again like one that died."""
        self._expelled_for = reason
        self._expelled.set()

    async def _run(self) -> None:
        try:
            await self._live_until_stopped()
        finally:
            self._kill_group()  # also if the task is cancelled: whoever ends the loop ends the containers
        await self.log.close()
        if self._state.status is not InstanceStatus.STOPPING:
            self._post(InstanceStatus.STOPPING)
        self._post(InstanceStatus.STOPPED)

    async def _live_until_stopped(self) -> None:
        deaths = 0
        while not self._stop.is_set():
            death = await self._live_guarded()
            if death.what is None or self._stop.is_set():
                return
            deaths = lifecycle.deaths_in_a_row(deaths, death.healthy_seconds or 0.0)
            text = failure.compose(death.what, log_tail=death.log_tail, log_file=self.spec.log_file)
            self._state = replace(self._state, failure=text, log_tail=death.log_tail)
            next_status = lifecycle.status_after_death(
                ever_healthy=self._ever_healthy, keep_trying=self.spec.keep_trying
            )
            if next_status is InstanceStatus.FAILED:
                self.log.note(f"instance {self.spec.instance_id} failed: {death.what}")
                self._post(InstanceStatus.FAILED)
                await self._stop.wait()
                return
            pause = lifecycle.backoff_seconds(deaths)
            self.log.note(
                f"instance {self.spec.instance_id}: {death.what}; it is started again in {pause:g} s"
            )
            self._post(InstanceStatus.RESTARTING, restarts=self._state.restarts + 1)
            await _wait_for(self._stop, pause)

    async def _live_guarded(self) -> _Death:
        """A fault of ours costs the instance one life, not its supervision."""
        try:
            return await self._live()
        except Exception:
            _log.exception("supervising instance %s failed", self.spec.instance_id)
            return _Death(
                what=f"{failure.container(self.spec)} was ended by a fault in Moorage itself; see its log"
            )

    async def _live(self) -> _Death:
        """One life of the container, from its start until nothing of it is left."""
        if self._state.status is InstanceStatus.RESTARTING:
            generation = self._state.generation + 1
            self._post(InstanceStatus.STARTING, generation=generation, port=0, network="", log_tail=())
        oom_kills = procfs.out_of_memory_kills()
        self._expelled.clear()
        try:
            place = await self._take_place()
        except OSError as error:
            return _Death(what=self._not_started(f"it has no network: {error.strerror or error}"))
        if place is None:
            return _Death()
        try:
            return await self._live_in(place, oom_kills)
        finally:
            await self._launcher.networks.give_back(place, self._state.network)

    async def _live_in(self, place: Place, oom_kills: int) -> _Death:
        try:
            async with self._launcher.spawning:
                await asyncio.sleep(0)  # many starts at once must not hold up the loop for all their time
                if self._stop.is_set():
                    return _Death()
                leader = self._start_leader(place)
        except CannotStart as error:
            return _Death(what=self._not_started(str(error)))
        finally:
            if place.kept is not None:
                place.kept.close()
        self.leader_pid = leader.pid
        self._cgroup = leader.cgroup
        self._began = procfs.start_time(leader.pid)
        try:
            self._post(InstanceStatus.STARTING, port=leader.port, network=leader.network)
            await self._let_out(leader)
            leader.release()
            return await self._attend(leader, oom_kills)
        finally:
            self._kill_group()
            await self._bury(leader)

    def _not_started(self, why: str) -> str:
        return f"{failure.container(self.spec)} could not be started: {why}"

    async def _take_place(self) -> Place | None:
        """The time that a container has for its start begins later."""
        linked = self._launcher.isolation.network is Network.OUTBOUND and not self.spec.network_isolation
        return await self._launcher.networks.take(
            f"{self.spec.instance_id}-{self._state.generation}",
            linked=linked,
            stopped=self._stop,
            on_wait=self._say_that_it_waits,
        )

    def _say_that_it_waits(self, why: str) -> None:
        self.log.note(f"instance {self.spec.instance_id} waits: {why}")
        self._post(InstanceStatus.STARTING, failure=f"It waits: {why}.")
        _log.warning("instance %s waits: %s", self.spec.instance_id, why)

    async def _let_out(self, leader: Leader) -> None:
        """Before its command begins, unless it is to stop meanwhile."""
        if not leader.network or self.spec.network_isolation:
            return
        letting = asyncio.create_task(self._launcher.networks.let_out(leader.network), name="let out")
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait({letting, stop}, return_when=asyncio.FIRST_COMPLETED)
            if letting.done():
                letting.result()
        except OSError as error:
            self.log.note(f"instance {self.spec.instance_id} cannot call out: {error.strerror or error}")
        finally:
            letting.cancel()
            stop.cancel()

    async def _attend(self, leader: Leader, oom_kills: int) -> _Death:
        """Wait for the first of: the process is gone, it is unhealthy, it is to be stopped."""
        health = asyncio.create_task(self._probe(leader), name=f"probe-{self.spec.instance_id}")
        stop = asyncio.create_task(self._stop.wait(), name=f"stop-{self.spec.instance_id}")
        expelled = asyncio.create_task(self._expelled.wait(), name=f"expel-{self.spec.instance_id}")
        try:
            first: set[asyncio.Future[Any]] = {leader.gone, health, stop, expelled}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (health, stop, expelled):
                task.cancel()
            await asyncio.wait({health, stop, expelled})  # from here on nobody else posts a state
        if self._stop.is_set():
            await self._terminate(leader)
            return _Death()
        if leader.gone.done():
            return await self._describe_exit(leader, oom_kills)
        what = self._expelled_for if self._expelled.is_set() else health.result()
        return _Death(
            what=f"{failure.container(self.spec)} {what}",
            healthy_seconds=leader.healthy_seconds(),
            log_tail=await self.log.tail(),
        )

    def _start_leader(self, place: Place) -> Leader:
        leader = start_leader(
            self.spec,
            self._launcher.environment_of(self.spec, place),
            generation=self._state.generation,
            port=place.port,
            log=self.log,
            isolation=self._launcher.isolation,
            kept=place.kept,
        )
        self.log.note(
            f"instance {self.spec.instance_id} started: generation {self._state.generation}, pid {leader.pid}, "
            f"port {place.port}, command {shlex.join(self.spec.argv)}"
        )
        return leader

    async def _probe(self, leader: Leader) -> str:
        """Ping until the container is healthy and then for as long as it is; return what is wrong with it."""
        launcher = self._launcher
        check = HealthCheck(
            self.spec, leader, self.log, host=launcher.host, patience=launcher.patience, members=self.members
        )
        result = await check.until_healthy()
        if result.outcome is not PingOutcome.OK:
            limit = min(self.spec.startup_timeout_seconds, math.ceil(leader.age()))
            return (
                f"did not pass the ping health check within {limit:g} seconds: {await check.phrase(result)}"
            )
        leader.healthy_since = time.monotonic()
        self._ever_healthy = True
        self.log.note(f"instance {self.spec.instance_id} in service after {leader.age():.2f} s")
        self._post(InstanceStatus.IN_SERVICE, failure=None)
        why = await check.phrase(await check.while_healthy())
        self._post(InstanceStatus.UNHEALTHY)
        return f"does not pass the ping health check any more: {why}"

    async def _describe_exit(self, leader: Leader, oom_kills: int) -> _Death:
        returncode = leader.gone.result()
        tail = await self.log.tail()
        limit = self._launcher.isolation.limits.memory_bytes
        memory = failure.memory_phrase(
            returncode,
            kernel_killed=procfs.out_of_memory_kills() > oom_kills,
            limit_reached=limit if leader.cgroup is not None and leader.cgroup.out_of_memory_kills() else 0,
            log_tail=tail,
        )
        healthy_seconds = leader.healthy_seconds()
        when = "" if healthy_seconds is not None else " before it passed the ping health check"
        what = f"{failure.container(self.spec)} {failure.exit_phrase(returncode)}{memory}{when}"
        return _Death(what=what, healthy_seconds=healthy_seconds, log_tail=tail)

    async def _terminate(self, leader: Leader) -> None:
        """SIGTERM to the group, and time for the leader to go; what it leaves behind is killed by `_bury`."""
        self._post(InstanceStatus.STOPPING)
        self.log.note(f"instance {self.spec.instance_id} is being stopped")
        self._signal_group(signal.SIGTERM)
        hurry = asyncio.create_task(self._hurry.wait(), name=f"hurry-{self.spec.instance_id}")
        try:
            first: set[asyncio.Future[Any]] = {leader.gone, hurry}
            patience = self._launcher.stop_timeout_seconds
            if leader.healthy_since is None:
                # The launch chain in a view ignores the signal until it becomes the container.
                await asyncio.wait(first, timeout=_START_GRACE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                self._signal_group(signal.SIGTERM)
                patience -= _START_GRACE_SECONDS
            await asyncio.wait(first, timeout=max(0.0, patience), return_when=asyncio.FIRST_COMPLETED)
            if not leader.gone.done() and hurry.done():
                await asyncio.wait({leader.gone}, timeout=_HURRIED_GRACE_SECONDS)
        finally:
            hurry.cancel()
        if not leader.gone.done():
            self.log.note(f"instance {self.spec.instance_id} did not go; it is killed")

    async def _bury(self, leader: Leader) -> None:
        """After the group was sent SIGKILL: collect the leader, then clear the rest."""
        returncode = await leader.gone
        self._kill_group()  # once more: someone may have forked while the first was on its way
        self.log.note(f"instance {self.spec.instance_id} {failure.exit_phrase(returncode)}")
        try:
            await self._clear()
        finally:
            leader.collect()  # only now may the kernel give its numbers to others
            self.leader_pid = 0

    def _kill_group(self) -> None:
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: int) -> None:
        if self.leader_pid:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.leader_pid, number)

    async def _clear(self) -> None:
        """Kill everything of this instance wherever it went, until nothing is left.

        What dies is in its control groups for a moment longer than it can be seen.
        """
        if self._cgroup is not None:
            self._cgroup.forbid_forks()
        deadline = time.monotonic() + _CLEARING_SECONDS
        pause = 0.005
        while (left := await self._remains()) or not self._remove_cgroup():
            for process in left:
                procfs.kill(process)
            if time.monotonic() > deadline:
                pids = ", ".join(str(process.pid) for process in left)
                what = f"processes {pids} cannot be killed" if left else "its control group cannot be removed"
                self.log.note(f"instance {self.spec.instance_id}: {what}")
                _log.error("instance %s: %s", self.spec.instance_id, what)
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.2)
            for process in left:
                procfs.reap(process.pid)
        self._cgroup = None

    def _remove_cgroup(self) -> bool:
        """Whether there is none any more."""
        return self._cgroup is None or self._cgroup.remove()

    async def _remains(self) -> list[procfs.Process]:
        """What is to be killed: the instance's processes, and those that hide whose they are."""
        living = await self.members()
        launcher = self._launcher
        if launcher.ends_orphans and self._cgroup is None and launcher.isolation.view is None:
            living += await launcher.adopted(since=self._began)
        return living

    async def members(self) -> list[procfs.Process]:
        """The living processes of this instance."""
        if self._cgroup is not None:
            return await in_thread(procfs.living, self._cgroup.pids())
        return procfs.members(
            await self._launcher.census.take(),
            leader=self.leader_pid,
            marker=self._launcher.marker,
            instance_id=self.spec.instance_id,
        )

    def _post(self, status: InstanceStatus, **changes: Any) -> None:
        self._state = replace(self._state, status=status, **changes)
        self._launcher.board.post(self._state)


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
