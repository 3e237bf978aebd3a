"""The life of an instance as pure rules: which states follow which, how long to wait, when to give up on it.

Nothing here knows of processes, sockets or asyncio; the launchers ask, and act on the answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from moorage.launchers.base import InstanceStatus

_S = InstanceStatus

TRANSITIONS: Mapping[InstanceStatus | None, frozenset[InstanceStatus]] = {
    None: frozenset({_S.STARTING}),
    _S.STARTING: frozenset({_S.STARTING, _S.IN_SERVICE, _S.RESTARTING, _S.FAILED, _S.STOPPING}),
    _S.IN_SERVICE: frozenset({_S.UNHEALTHY, _S.RESTARTING, _S.STOPPING}),
    _S.UNHEALTHY: frozenset({_S.RESTARTING, _S.STOPPING}),
    _S.RESTARTING: frozenset({_S.STARTING, _S.STOPPING}),
    _S.FAILED: frozenset({_S.STOPPING}),
    _S.STOPPING: frozenset({_S.STOPPED}),
    _S.STOPPED: frozenset(),
}
"""What may follow a state; `None` is an instance that does not exist yet. `STARTING` follows itself when the
port becomes known."""

_FIRST_BACKOFF_SECONDS = 0.1
_LONGEST_BACKOFF_SECONDS = 30.0
_STABLE_SECONDS = 60.0
_WRONG_PORT_SECONDS = 30.0


class IllegalTransition(Exception):
    """A launcher tried to report a state that cannot follow the one before it: a bug."""


def check_transition(before: InstanceStatus | None, after: InstanceStatus) -> None:
    """Raises `IllegalTransition` unless `after` may follow `before`."""
    if after not in TRANSITIONS[before]:
        raise IllegalTransition(f"{after} cannot follow {before or 'nothing'}")


def status_after_death(*, ever_healthy: bool, keep_trying: bool) -> InstanceStatus:
    """A container that never answered is not tried again, unless its endpoint is known to have worked."""
    return _S.RESTARTING if ever_healthy or keep_trying else _S.FAILED


def deaths_in_a_row(before: int, healthy_seconds: float) -> int:
    """Count one more death; a container that was healthy for a minute starts the count anew."""
    return 1 if healthy_seconds >= _STABLE_SECONDS else before + 1


def backoff_seconds(deaths: int) -> float:
    """The wait before the start that follows the `deaths`-th death in a row: 0.1 s, doubling up to 30 s."""
    return float(min(_LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2.0 ** min(deaths - 1, 20)))


def probe_pause_seconds(elapsed_seconds: float) -> float:
    """The wait between two pings during a start: never adds more than a tenth to the time it took."""
    return min(0.5, max(0.05, elapsed_seconds / 10))


class PingOutcome(StrEnum):
    OK = "ok"
    REFUSED = "refused"  # nobody listens on the port
    SILENT = "silent"  # no answer in time
    WRONG = "wrong"  # answered, but not 200
    BROKEN = "broken"  # the connection ended, or what came was not HTTP
    FOREIGN = "foreign"  # 200, but from somebody else who listens there too


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The recent pings of a container that was healthy.

    Two clocks, because two things look alike: a container whose port is closed or which answers an error says
    so itself, and `unhealthy_after` such answers in a row are believed. One that does not answer may only be
    busy with a long invocation; SageMaker waits about three minutes for it, and so does `silent_seconds`.
    """

    last_good: float
    errors: int = 0

    def after(self, outcome: PingOutcome, now: float) -> "Health":
        if outcome is PingOutcome.OK:
            return Health(last_good=now)
        return Health(last_good=self.last_good, errors=self.errors + (outcome is not PingOutcome.SILENT))

    def is_unhealthy(self, now: float, *, unhealthy_after: int, silent_seconds: float) -> bool:
        return self.errors >= unhealthy_after or now - self.last_good >= silent_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """What is known, while a container starts, of its listening on other ports than its own.

    Other ports alone mean little: servers open them for themselves, some long before the one for their callers. One
    that answers `/ping` there serves its callers on the wrong port, and waiting will not change it: 30 seconds are
    enough. Ages are in seconds since the start.
    """

    seen: bool = False
    next_look: float = 0.5
    answered_since: float | None = None

    def is_due(self, age: float) -> bool:
        return age >= self.next_look

    def after(self, answers: bool, age: float) -> "Elsewhere":
        since = self.answered_since if self.answered_since is not None else age
        return Elsewhere(seen=True, next_look=age * 1.2 + 0.5, answered_since=since if answers else None)

    def is_hopeless(self, age: float) -> bool:
        return self.answered_since is not None and age - self.answered_since >= _WRONG_PORT_SECONDS
