"""The ping health check of one start of a container: until it is healthy, and for as long as it is."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from moorage.launchers import failure, lifecycle, procfs
from moorage.launchers.base import InstanceSpec
from moorage.launchers.census import in_thread
from moorage.launchers.leader import Leader
from moorage.launchers.lifecycle import Health, PingOutcome
from moorage.launchers.log_collector import InstanceLog
from moorage.launchers.ping import PingResult, ping

_BEATS: Final = 50
_ELSEWHERE_SECONDS: Final = 0.5
_PORTS_LOOKED_AT: Final = 5

Members = Callable[[], Awaitable[Sequence[procfs.Process]]]
"""The living processes of an instance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often a container is pinged, in seconds, and when it is given up; see `lifecycle.Health`."""

    ping_interval_seconds: float = 5.0
    ping_timeout_seconds: float = 2.0
    unhealthy_after: int = 3
    silent_seconds: float = 180.0


class HealthCheck:
    """`until_healthy` once, then `while_healthy`; `phrase` says what was wrong, as the end of a sentence."""

    def __init__(
        self,
        spec: InstanceSpec,
        leader: Leader,
        log: InstanceLog,
        *,
        host: str,
        patience: Patience,
        members: Members,
    ) -> None:
        self._spec = spec
        self._leader = leader
        self._log = log
        self._host = host
        self._patience = patience
        self._members = members

    async def until_healthy(self) -> PingResult:
        """The first good ping, or the last bad one when the time for the start is over."""
        leader = self._leader
        deadline = leader.started + self._spec.startup_timeout_seconds
        elsewhere = lifecycle.Elsewhere()
        while True:
            room = max(0.05, min(self._patience.ping_timeout_seconds, deadline - time.monotonic()))
            result = await self._ping(leader.port, room)
            if result.outcome is PingOutcome.OK and not await self._listens_alone():
                result = PingResult(outcome=PingOutcome.FOREIGN)
            left = deadline - time.monotonic()
            if result.outcome is PingOutcome.OK or left <= 0:
                return result
            if result.outcome is PingOutcome.REFUSED and elsewhere.is_due(leader.age()):
                elsewhere = elsewhere.after(await self._answers_elsewhere(elsewhere), leader.age())
                if elsewhere.is_hopeless(leader.age()):
                    return result
            await asyncio.sleep(min(lifecycle.probe_pause_seconds(leader.age()), left))

    async def while_healthy(self) -> PingResult:
        """The ping with which the container's health ended."""
        patience = self._patience
        health = Health(last_good=time.monotonic())
        interval = patience.ping_interval_seconds
        await _sleep_to_beat(interval * random.random(), interval)  # many may have begun together
        while True:
            result = await self._ping(self._leader.port, patience.ping_timeout_seconds)
            # Whoever was away for a while may have been replaced by somebody else.
            if result.outcome is PingOutcome.OK and health.errors and not await self._listens_alone():
                result = PingResult(outcome=PingOutcome.FOREIGN)
            now = time.monotonic()
            health = health.after(result.outcome, now)
            if health.is_unhealthy(
                now, unhealthy_after=patience.unhealthy_after, silent_seconds=patience.silent_seconds
            ):
                return result
            await _sleep_to_beat(interval, interval)

    async def phrase(self, result: PingResult) -> str:
        listening: dict[int, set[str]] = {}
        if result.outcome is PingOutcome.REFUSED:
            listening = await in_thread(procfs.listening_ports, await self._members())
        limit = min(self._patience.ping_timeout_seconds, self._spec.startup_timeout_seconds)
        return failure.ping_phrase(
            result, host=self._host, port=self._leader.port, timeout_seconds=limit, listening=listening
        )

    async def _ping(self, port: int, timeout_seconds: float) -> PingResult:
        return await ping(self._host, port, network=self._leader.network, timeout_seconds=timeout_seconds)

    async def _listens_alone(self) -> bool:
        """Whether only this instance's own processes listen on its port: always, in a network of its own."""
        if self._leader.network:
            return True
        return await in_thread(procfs.listen_alone, await self._members(), self._leader.port)

    async def _answers_elsewhere(self, before: lifecycle.Elsewhere) -> bool:
        """Whether the container answers /ping on another port. The log says, once, which ports it has opened."""
        listening = await in_thread(procfs.listening_ports, await self._members())
        ports = sorted(listening)[:_PORTS_LOOKED_AT]
        if ports and not before.seen:
            self._log.note(
                f"instance {self._spec.instance_id} listens on port {', '.join(map(str, ports))}, but not on port "
                f"{self._leader.port}, where it is called; that port is in SAGEMAKER_BIND_TO_PORT"
            )
        for port in ports:
            result = await self._ping(port, _ELSEWHERE_SECONDS)
            if result.outcome in (PingOutcome.OK, PingOutcome.WRONG):
                return True
        return False


async def _sleep_to_beat(seconds: float, interval: float) -> None:
    """And until the next of the `_BEATS` in an interval that all instances share: a wake-up for each ping would cost
    as much as the ping."""
    beat = interval / _BEATS
    await asyncio.sleep(seconds + -(time.monotonic() + seconds) % beat)
