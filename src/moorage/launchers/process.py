"""Instances as process groups of this machine.

* **Start and death** of the leader, the process that stands for the container's PID 1, are in `leader`.
* **The life of an instance**, through all its starts, is in `supervision`; `lifecycle` holds the rules.
* **The rest**: when the leader is gone, for whatever reason, everything of the instance is killed, before any
  restart. What belongs to an instance is in its control groups, or else in `procfs`.
* **Whose port it is**: with a network of its own the container listens on port 8080 and nobody else can. On the
  machine's network anyone may, so a ping is believed only if nobody but the instance's processes listens there.
* **Orphans** that become our children (see `become_subreaper`) are nobody's: dead children that nobody has
  collected from one tick to the next are collected here.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from moorage.launchers import procfs
from moorage.launchers.base import InstanceSpec, InstanceState, LauncherError
from moorage.launchers.board import StateBoard
from moorage.launchers.census import Census, in_thread
from moorage.launchers.health_check import Patience
from moorage.launchers.isolation import NO_ISOLATION, Isolation, Network
from moorage.launchers.log_collector import LogCollector
from moorage.launchers.networks import KeptNetworks, MachineNetwork, Networks, OwnNetworks, Place
from moorage.launchers.ports import Ports
from moorage.launchers.procfs import become_subreaper, sweep
from moorage.launchers.server_access import ServerAccess
from moorage.launchers.supervision import Instance
from moorage.outbound.client import OutboundClient
from moorage.outbound.keeper_client import KeeperClient

__all__ = ["ProcessLauncher", "become_subreaper", "sweep"]

_log = logging.getLogger(__name__)

_MIB: Final = 1024 * 1024
_SHARE_OF_SOCKETS: Final = 2048
"""What an instance may hold while ports are short on the machine's network."""

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
    they are given; `access` tells where the server and the role's credentials are. `marker` names this installation
    (its data directory): `sweep(marker)` finds the leftovers.

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
        access: ServerAccess | None = None,
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
        self.patience = Patience(
            ping_interval_seconds=ping_interval_seconds,
            ping_timeout_seconds=ping_timeout_seconds,
            unhealthy_after=unhealthy_after,
            silent_seconds=silent_seconds,
        )
        self.isolation = isolation
        self.ends_orphans = ends_orphans
        self.logs = LogCollector(limit_bytes=log_limit_bytes, rate=log_rate)
        self.board = StateBoard()
        self.ports = Ports(host)
        self.networks = self._networks(outbound, keeper)
        self.census = Census()
        self.spawning = asyncio.Lock()
        self._keeper = keeper
        self._common = {"AWS_REGION": region, "SAGEMAKER_REGION": region, **(environment or {})}
        self._access = access
        self._instances: dict[str, Instance] = {}
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
            if self._keeper is not None:
                self._following = asyncio.create_task(self._follow(self._keeper), name="launcher-keeper")
        instance = Instance(self, spec)
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
        self.logs.close()

    def _networks(self, outbound: OutboundClient | None, keeper: KeeperClient | None) -> Networks:
        if self.isolation.network is Network.HOST:
            return MachineNetwork(self.ports, self._make_room_for_ports)
        return OwnNetworks(outbound) if keeper is None else KeptNetworks(keeper)

    def environment_of(self, spec: InstanceSpec, place: Place) -> dict[str, str]:
        """Everything the container sees."""
        base = {"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        if self._access is not None and any(name.lower().endswith("_proxy") for name in passed_on):
            for name in ("NO_PROXY", "no_proxy"):
                passed_on[name] = ",".join((*filter(None, [passed_on.get(name)]), *self._access.hosts))
        inside = self.isolation.path_inside
        base_dir = inside(spec, spec.base_dir)
        given = {name: inside(spec, value) for name, value in spec.environment.items()}
        fixed = {
            "SAGEMAKER_BIND_TO_HOST": self.host,
            "SAGEMAKER_BIND_TO_PORT": str(place.port),
            "SAGEMAKER_SAFE_PORT_RANGE": place.safe_ports,
            "SAGEMAKER_BASE_DIR": base_dir,
            "SM_MODEL_DIR": str(Path(base_dir) / "model"),
            procfs.MARKER_VARIABLE: self.marker,
            procfs.INSTANCE_VARIABLE: spec.instance_id,
        }
        common = self._common | dict(self._access.environment(spec) if self._access is not None else {})
        common["AWS_DEFAULT_REGION"] = given.get("AWS_REGION", common["AWS_REGION"])
        return base | passed_on | self.isolation.home_of(spec) | common | given | fixed

    def _forget(self, instance: Instance) -> None:
        if self._instances.get(instance.spec.instance_id) is instance:
            del self._instances[instance.spec.instance_id]

    async def _make_room_for_ports(self) -> None:
        """Ports are short: an instance that holds more sockets than its share is started anew, without them."""
        for instance in list(self._instances.values()):
            members = await instance.members()
            held = await in_thread(procfs.count_sockets, members)
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
            await asyncio.sleep(self.patience.ping_interval_seconds)
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
        dead = await in_thread(procfs.dead_children, besides=leaders)
        for pid, _ in dead & before:
            procfs.reap(pid)
        return dead - before
