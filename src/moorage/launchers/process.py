"""Instances as process groups of this machine.

* **Start and death** of the leader, the process that stands for the container's PID 1, are in `leader`.
* **The rest**: when the leader is gone, for whatever reason, everything of the instance is killed, before any
  restart. What belongs to an instance is in its control groups, or else in `procfs`.
* **Whose port it is**: with a network of its own the container listens on port 8080 and nobody else can. On the
  machine's network anyone may, so a ping is believed only if nobody but the instance's processes listens there.
* **Orphans** that become our children (see `become_subreaper`) are nobody's: dead children that nobody has
  collected from one tick to the next are collected here.

One task per instance walks through its lives; `lifecycle` holds the rules it walks by.
"""

import asyncio
import logging
import math
import os
import random
import shlex
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from moorage.launchers import failure, lifecycle, procfs
from moorage.launchers.base import InstanceSpec, InstanceState, InstanceStatus, LauncherError
from moorage.launchers.board import StateBoard
from moorage.launchers.cgroups import Cgroup
from moorage.launchers.isolation import NO_ISOLATION, Isolation, Network
from moorage.launchers.leader import CannotStart, Leader, start_leader
from moorage.launchers.lifecycle import Health, PingOutcome
from moorage.launchers.log_collector import LogCollector
from moorage.launchers.ping import PingResult, ping
from moorage.launchers.ports import OWN_NETWORK_PORT, PORTS_PER_INSTANCE, NoFreePort, Ports
from moorage.launchers.procfs import become_subreaper, sweep
from moorage.outbound.client import OutboundClient
from moorage.outbound.keeper_client import KeeperClient, KeptNetwork

__all__ = ["ProcessLauncher", "become_subreaper", "sweep"]

_log = logging.getLogger(__name__)

_MIB: Final = 1024 * 1024
_HURRIED_GRACE_SECONDS: Final = 0.1
_CLEARING_SECONDS: Final = 10.0
_BEATS: Final = 50
_ELSEWHERE_SECONDS: Final = 0.5
_PORT_PAUSE_SECONDS: Final = 1.0
_SHARE_OF_SOCKETS: Final = 2048
"""What an instance may hold while ports are short on the machine's network."""

_OWN_NETWORK_SAFE_PORTS: Final = "21000-21999"

_PASSED_ON: Final = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
    *("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
"""All that a container gets from our own environment. Nothing that may be secret: no AWS_*, no MOORAGE_*."""


class ProcessLauncher:
    """Keeps instances alive as processes of this machine; the seam is `moorage.launchers.base.Launcher`.

    `environment` is for every container; an instance's own variables override it, and the variables that tell
    where to listen and where the model is override both. `region` fills AWS_REGION and SAGEMAKER_REGION unless
    they are given. `marker` names this installation (its data directory): `sweep(marker)` finds the leftovers.

    A container that answers /ping with an error, or not at all because its port is closed, is replaced after
    `unhealthy_after` such pings in a row; one that just does not answer in time (it may be busy) after
    `silent_seconds`. Of each log the newest `log_limit_bytes` are kept. `isolation` fences containers in. `outbound`
    lets those with a network of their own call out, `keeper` makes the networks where this process may not. With
    `ends_orphans` processes that hide whose they are end with an instance, too: for a process that is a subreaper
    and marks its own children.
    """

    def __init__(
        self,
        *,
        marker: str,
        host: str = "127.0.0.1",
        region: str = "us-east-1",
        environment: Mapping[str, str] | None = None,
        stop_timeout_seconds: float = 30.0,
        ping_interval_seconds: float = 5.0,
        ping_timeout_seconds: float = 2.0,
        unhealthy_after: int = 3,
        silent_seconds: float = 180.0,
        log_limit_bytes: int = 64 * _MIB,
        log_rate: float = _MIB,
        isolation: Isolation = NO_ISOLATION,
        outbound: OutboundClient | None = None,
        keeper: KeeperClient | None = None,
        ends_orphans: bool = False,
    ) -> None:
        self.marker = marker
        self.host = host
        self.stop_timeout_seconds = stop_timeout_seconds
        self.ping_interval_seconds = ping_interval_seconds
        self.ping_timeout_seconds = ping_timeout_seconds
        self.unhealthy_after = unhealthy_after
        self.silent_seconds = silent_seconds
        self.isolation = isolation
        self.outbound = outbound
        self.keeper = keeper
        self.ends_orphans = ends_orphans
        self.logs = LogCollector(limit_bytes=log_limit_bytes, rate=log_rate)
        self.board = StateBoard()
        self.ports = Ports(host)
        self.census = _Census()
        self.spawning = asyncio.Lock()
        self._common = {"AWS_REGION": region, "SAGEMAKER_REGION": region, **(environment or {})}
        self._instances: dict[str, _Instance] = {}
        self._housekeeping: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<ProcessLauncher marker={self.marker!r} instances={len(self._instances)}>"

    async def launch(self, spec: InstanceSpec) -> None:
        """Begin starting an instance. One with the same id that is being stopped is waited for first.

        Raises:
            LauncherError: this launcher is closed.
        """
        while (old := self._instances.get(spec.instance_id)) is not None:
            if not old.is_stopping:
                return
            await asyncio.wait({old.task})
        if self._closed:
            raise LauncherError("the launcher is shutting down and starts no more instances")
        if self._housekeeping is None:
            self._housekeeping = asyncio.create_task(self._keep_house(), name="launcher-housekeeping")
            if self.keeper is not None:
                self._following = asyncio.create_task(self._follow(self.keeper), name="launcher-keeper")
        instance = _Instance(self, spec)
        self._instances[spec.instance_id] = instance
        instance.task.add_done_callback(lambda _: self._forget(instance))

    async def stop(self, instance_id: str, *, hurry: bool = False) -> None:
        """Stop an instance and wait until nothing of it is left. A second call with `hurry` speeds it up."""
        instance = self._instances.get(instance_id)
        if instance is not None:
            instance.ask_to_stop(hurry=hurry)
            await asyncio.wait({instance.task})

    def watch(self) -> AsyncIterator[Sequence[InstanceState]]:
        return self.board.watch()

    async def close(self, *, hurry: bool = False) -> None:
        """Stop every instance, all at the same time, and end every `watch`."""
        self._closed = True
        await asyncio.gather(*(self.stop(instance_id, hurry=hurry) for instance_id in list(self._instances)))
        for task in (self._housekeeping, self._following):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        self.board.close()
        self.census.close()
        self.logs.close()

    def environment_of(self, spec: InstanceSpec, port: int) -> dict[str, str]:
        """Everything the container sees."""
        base = {"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        inside = self.isolation.path_inside
        base_dir = inside(spec, spec.base_dir)
        given = {name: inside(spec, value) for name, value in spec.environment.items()}
        fixed = {
            "SAGEMAKER_BIND_TO_HOST": self.host,
            "SAGEMAKER_BIND_TO_PORT": str(port),
            "SAGEMAKER_SAFE_PORT_RANGE": self._safe_ports(port),
            "SAGEMAKER_BASE_DIR": base_dir,
            "SM_MODEL_DIR": str(Path(base_dir) / "model"),
            procfs.MARKER_VARIABLE: self.marker,
            procfs.INSTANCE_VARIABLE: spec.instance_id,
        }
        return base | passed_on | self.isolation.home_of(spec) | self._common | given | fixed

    def _safe_ports(self, port: int) -> str:
        if self.isolation.network is Network.HOST:
            return f"{port + 1}-{port + PORTS_PER_INSTANCE - 1}"
        return _OWN_NETWORK_SAFE_PORTS

    def _forget(self, instance: "_Instance") -> None:
        if self._instances.get(instance.spec.instance_id) is instance:
            del self._instances[instance.spec.instance_id]

    async def make_room_for_ports(self) -> None:
        """Ports are short: an instance that holds more sockets than its share is started anew, without them."""
        for instance in list(self._instances.values()):
            members = await instance.members()
            held = await asyncio.to_thread(procfs.count_sockets, members)
            if held > _SHARE_OF_SOCKETS:
                instance.expel(
                    f"held {held} sockets while the machine was short of ports, and may have {_SHARE_OF_SOCKETS} then"
                )

    async def _follow(self, keeper: KeeperClient) -> None:
        while True:
            await keeper.lost()
            for instance in list(self._instances.values()):
                instance.expel("lost its network, since the process that keeps it has ended")

    async def adopted(self, *, since: int) -> list[procfs.Process]:
        """Processes that became our children after that start time, since their parents ended, and hide whose they
        are."""
        leaders = {instance.leader_pid for instance in self._instances.values()}
        return procfs.adopted(await self.census.take(), besides=leaders, since=since)

    async def _keep_house(self) -> None:
        """Every few seconds: dead orphans that we were given."""
        uncollected: set[tuple[int, int]] = set()
        while True:
            await asyncio.sleep(self.ping_interval_seconds)
            try:
                uncollected = await self._collect_orphans(uncollected)
            except Exception:
                _log.exception("the launcher's housekeeping failed; it is tried again")

    async def _collect_orphans(self, before: set[tuple[int, int]]) -> set[tuple[int, int]]:
        """Collect the dead children seen in `before` and still there: whoever started them would have.

        So this never takes a child from `asyncio` or `subprocess`, and needs no list of whose is whose.
        """
        if not procfs.has_dead_children():
            return set()
        leaders = {instance.leader_pid for instance in self._instances.values()}
        dead = await asyncio.to_thread(procfs.dead_children, besides=leaders)
        for pid, _ in dead & before:
            procfs.reap(pid)
        return dead - before


@dataclass(frozen=True, slots=True, kw_only=True)
class _Death:
    """How a life ended: `what` is None if it was asked to end."""

    what: str | None = None
    healthy_seconds: float | None = None
    log_tail: tuple[str, ...] = ()


class _Instance:
    """One instance through all its lives, until it is stopped."""

    def __init__(self, launcher: ProcessLauncher, spec: InstanceSpec) -> None:
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
        return f"<_Instance {self.spec.instance_id} {self._state.status} leader={self.leader_pid}>"

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
            port = await self._take_port()
            kept = await self._new_network()
            try:
                async with self._launcher.spawning:
                    await asyncio.sleep(0)  # many starts at once must not hold up the loop for all their time
                    if self._stop.is_set():
                        self._give_back(port)
                        return _Death()
                    leader = self._start_leader(port, kept)
            finally:
                if kept is not None:
                    kept.close()
        except CannotStart as error:
            return _Death(what=f"{failure.container(self.spec)} could not be started: {error}")
        self.leader_pid = leader.pid
        self._cgroup = leader.cgroup
        self._began = procfs.start_time(leader.pid)
        try:
            self._post(InstanceStatus.STARTING, port=leader.port, network=leader.network)
            await self._let_call_out(leader)
            leader.release()
            return await self._attend(leader, oom_kills)
        finally:
            self._kill_group()
            await self._bury(leader)

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

    async def _let_call_out(self, leader: Leader) -> None:
        outbound = self._launcher.outbound
        if outbound is not None and leader.network and not self.spec.network_isolation:
            try:
                await outbound.attach(leader.network)
            except OSError as error:
                self.log.note(f"instance {self.spec.instance_id} cannot call out: {error.strerror or error}")

    async def _take_port(self) -> int:
        """A free port. A shortage passes, so it is waited out; the time that a container has for its start begins
        later."""
        if self._launcher.isolation.network is not Network.HOST:
            return OWN_NETWORK_PORT
        said = False
        while not self._stop.is_set():
            try:
                return self._launcher.ports.take()
            except NoFreePort as error:
                if not said:
                    said = True
                    self.log.note(f"instance {self.spec.instance_id} waits: {error}")
                    self._post(InstanceStatus.STARTING, failure=f"It waits: {error}.")
                    _log.warning("instance %s waits: %s", self.spec.instance_id, error)
                await self._launcher.make_room_for_ports()
                await _wait_for(self._stop, _PORT_PAUSE_SECONDS)
        return 0

    def _give_back(self, port: int) -> None:
        if self._launcher.isolation.network is Network.HOST:
            self._launcher.ports.give_back(port)

    @property
    def _network_key(self) -> str:
        return f"{self.spec.instance_id}-{self._state.generation}"

    async def _new_network(self) -> KeptNetwork | None:
        """The network of this start, where another process has to make it."""
        keeper, isolation = self._launcher.keeper, self._launcher.isolation
        if keeper is None or not isolation.keeps_networks:
            return None
        linked = isolation.network is Network.OUTBOUND and not self.spec.network_isolation
        try:
            return await keeper.new(self._network_key, linked=linked)
        except OSError as error:
            raise CannotStart(f"it has no network: {error.strerror or error}") from error

    async def _leave_network(self, leader: Leader) -> None:
        """After the last process in it is gone."""
        if self._launcher.outbound is not None:
            self._launcher.outbound.detach(leader.network)
        if self._launcher.keeper is not None and leader.network:
            try:
                await self._launcher.keeper.forget(self._network_key)
            except OSError as error:
                _log.debug("a network was not given back: %s", error)

    def _start_leader(self, port: int, kept: KeptNetwork | None) -> Leader:
        try:
            leader = start_leader(
                self.spec,
                self._launcher.environment_of(self.spec, port),
                generation=self._state.generation,
                port=port,
                log=self.log,
                isolation=self._launcher.isolation,
                kept=kept,
            )
        except BaseException:
            self._give_back(port)
            raise
        self.log.note(
            f"instance {self.spec.instance_id} started: generation {self._state.generation}, pid {leader.pid}, "
            f"port {port}, command {shlex.join(self.spec.argv)}"
        )
        return leader

    async def _probe(self, leader: Leader) -> str:
        """Ping until the container is healthy and then for as long as it is; return what is wrong with it."""
        result = await self._probe_start(leader)
        if result.outcome is not PingOutcome.OK:
            why = await self._ping_phrase(result)
            limit = min(self.spec.startup_timeout_seconds, math.ceil(leader.age()))
            return f"did not pass the ping health check within {limit:g} seconds: {why}"
        leader.healthy_since = time.monotonic()
        self._ever_healthy = True
        self.log.note(f"instance {self.spec.instance_id} in service after {leader.age():.2f} s")
        self._post(InstanceStatus.IN_SERVICE, failure=None)
        result = await self._probe_steadily(leader)
        why = await self._ping_phrase(result)
        self._post(InstanceStatus.UNHEALTHY)
        return f"does not pass the ping health check any more: {why}"

    async def _probe_start(self, leader: Leader) -> PingResult:
        deadline = leader.started + self.spec.startup_timeout_seconds
        elsewhere = lifecycle.Elsewhere()
        while True:
            room = max(0.05, min(self._launcher.ping_timeout_seconds, deadline - time.monotonic()))
            result = await self._ping(leader, room)
            if result.outcome is PingOutcome.OK and not await self._listens_alone(leader):
                result = PingResult(outcome=PingOutcome.FOREIGN)
            left = deadline - time.monotonic()
            if result.outcome is PingOutcome.OK or left <= 0:
                return result
            if result.outcome is PingOutcome.REFUSED and elsewhere.is_due(leader.age()):
                elsewhere = elsewhere.after(await self._look_elsewhere(leader, elsewhere), leader.age())
                if elsewhere.is_hopeless(leader.age()):
                    return result
            await asyncio.sleep(min(lifecycle.probe_pause_seconds(leader.age()), left))

    async def _ping(self, leader: Leader, timeout_seconds: float) -> PingResult:
        return await ping(
            self._launcher.host, leader.port, network=leader.network, timeout_seconds=timeout_seconds
        )

    async def _listens_alone(self, leader: Leader) -> bool:
        """Whether only this instance's own processes listen on its port: always, in a network of its own."""
        if leader.network:
            return True
        members = await self.members()
        return await asyncio.to_thread(procfs.listen_alone, members, leader.port)

    async def _look_elsewhere(self, leader: Leader, before: lifecycle.Elsewhere) -> bool:
        """Whether the container answers /ping on another port than its own. The log says which ports it has
        opened."""
        members = await self.members()
        ports = sorted(await asyncio.to_thread(procfs.listening_ports, members))
        if ports and not before.seen:
            listed = ", ".join(map(str, ports[:5]))
            self.log.note(
                f"instance {self.spec.instance_id} listens on port {listed}, but not on port {leader.port}, "
                "where it is called; that port is in SAGEMAKER_BIND_TO_PORT"
            )
        for port in ports[:5]:
            result = await ping(
                self._launcher.host, port, network=leader.network, timeout_seconds=_ELSEWHERE_SECONDS
            )
            if result.outcome in (PingOutcome.OK, PingOutcome.WRONG):
                return True
        return False

    async def _probe_steadily(self, leader: Leader) -> PingResult:
        launcher = self._launcher
        health = Health(last_good=time.monotonic())
        interval = launcher.ping_interval_seconds
        await _sleep_to_beat(interval * random.random(), interval)  # many may have begun together
        while True:
            result = await self._ping(leader, launcher.ping_timeout_seconds)
            # Whoever was away for a while may have been replaced by somebody else.
            if result.outcome is PingOutcome.OK and health.errors and not await self._listens_alone(leader):
                result = PingResult(outcome=PingOutcome.FOREIGN)
            now = time.monotonic()
            health = health.after(result.outcome, now)
            if health.is_unhealthy(
                now, unhealthy_after=launcher.unhealthy_after, silent_seconds=launcher.silent_seconds
            ):
                return result
            await _sleep_to_beat(interval, interval)

    async def _ping_phrase(self, result: PingResult) -> str:
        listening: dict[int, set[str]] = {}
        if result.outcome is PingOutcome.REFUSED:
            living = await self.members()
            listening = await asyncio.to_thread(procfs.listening_ports, living)
        return failure.ping_phrase(
            result,
            host=self._launcher.host,
            port=self._state.port,
            timeout_seconds=min(self._launcher.ping_timeout_seconds, self.spec.startup_timeout_seconds),
            listening=listening,
        )

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
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader.pid, signal.SIGTERM)
        hurry = asyncio.create_task(self._hurry.wait(), name=f"hurry-{self.spec.instance_id}")
        try:
            first: set[asyncio.Future[Any]] = {leader.gone, hurry}
            await asyncio.wait(
                first,
                timeout=self._launcher.stop_timeout_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
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
            await self._leave_network(leader)
            leader.collect()  # only now may the kernel give its numbers to others
            self.leader_pid = 0
            self._give_back(leader.port)

    def _kill_group(self) -> None:
        if self.leader_pid:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.leader_pid, signal.SIGKILL)

    async def _clear(self) -> None:
        """Kill everything of this instance wherever it went, until nothing is left."""
        deadline = time.monotonic() + _CLEARING_SECONDS
        pause = 0.005
        while left := await self._remains():
            for process in left:
                procfs.kill(process)
            if time.monotonic() > deadline:
                pids = ", ".join(str(process.pid) for process in left)
                self.log.note(f"instance {self.spec.instance_id}: processes {pids} cannot be killed")
                _log.error("instance %s: processes %s cannot be killed", self.spec.instance_id, pids)
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.2)
            for process in left:
                procfs.reap(process.pid)
        if self._cgroup is not None and not self._cgroup.remove():
            _log.warning("a control group of instance %s cannot be removed", self.spec.instance_id)
        self._cgroup = None

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
            return await asyncio.to_thread(procfs.living, self._cgroup.pids())
        return procfs.members(
            await self._launcher.census.take(),
            leader=self.leader_pid,
            marker=self._launcher.marker,
            instance_id=self.spec.instance_id,
        )

    def _post(self, status: InstanceStatus, **changes: Any) -> None:
        self._state = replace(self._state, status=status, **changes)
        self._launcher.board.post(self._state)


class _Census:
    """Looks at all processes, in a thread; those who ask while a look is under way share the next one."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="census")
        self._running: asyncio.Task[list[procfs.Process]] | None = None
        self._waiting: asyncio.Task[list[procfs.Process]] | None = None

    async def take(self) -> list[procfs.Process]:
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._look(self._running), name="census")
        return await asyncio.shield(self._waiting)

    def close(self) -> None:
        self._executor.shutdown(wait=False)

    async def _look(self, before: "asyncio.Task[list[procfs.Process]] | None") -> list[procfs.Process]:
        if before is not None:
            await asyncio.wait({before})
        self._running, self._waiting = self._waiting, None
        return await asyncio.get_running_loop().run_in_executor(self._executor, procfs.processes)


async def _sleep_to_beat(seconds: float, interval: float) -> None:
    """And until the next of the `_BEATS` in an interval that all instances share: a wake-up for each ping would cost
    as much as the ping."""
    beat = interval / _BEATS
    await asyncio.sleep(seconds + -(time.monotonic() + seconds) % beat)


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
