"""What is left of endpoints and instances that are gone, and when it is removed: pure rules.

They decide from what is on the disk, in the database and running, so that no restart changes anything.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from moorage.resources import EndpointStatus

MAX_LOG_BYTES_PER_ACCOUNT: Final = 1024 * 1024 * 1024
"""Of instances that are gone. Whoever makes and deletes endpoints all day fills no disk with their logs."""
ENVIRONMENT_SECONDS: Final = 3600.0
"""How long an environment that no variant uses is kept at most. It is large, and only saves an endpoint of the same
name that is created again soon the time to install its requirements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLog:
    """A file of the log of an instance. `incarnation` is empty where none can be told; `modified` is in seconds since
    1970."""

    path: str
    account_id: str
    endpoint_name: str
    incarnation: str
    instance_id: str
    modified: float
    size: int

    @property
    def endpoint(self) -> tuple[str, str, str]:
        return self.account_id, self.endpoint_name, self.incarnation


def logs_to_remove(
    logs: Iterable[KeptLog],
    *,
    endpoints: Mapping[tuple[str, str, str], EndpointStatus],
    instances: Collection[str],
    now: float,
    keep_seconds: float,
) -> list[KeptLog]:
    """Files of instances that are gone, once nothing has been written to them for `keep_seconds`.

    Those of an endpoint that is Failed stay: they say why. Beyond `MAX_LOG_BYTES_PER_ACCOUNT` the oldest go sooner,
    Failed or not. `endpoints` has the status of each incarnation that there is, `instances` those that run.
    """
    removed: list[KeptLog] = []
    kept_bytes: dict[str, int] = defaultdict(int)
    for log in sorted(logs, key=lambda each: (-each.modified, each.path)):
        if log.instance_id in instances:
            continue
        expired = (
            now - log.modified >= keep_seconds and endpoints.get(log.endpoint) is not EndpointStatus.FAILED
        )
        if expired or kept_bytes[log.account_id] + log.size > MAX_LOG_BYTES_PER_ACCOUNT:
            removed.append(log)
        else:
            kept_bytes[log.account_id] += log.size
    return removed


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentDecision:
    """`touched` are to be marked as used at this time, by the time of their modification."""

    removed: frozenset[str]
    touched: frozenset[str]


def judge_environments(
    found: Mapping[str, float], *, used: Collection[str], now: float, keep_seconds: float
) -> EnvironmentDecision:
    """Which environments to remove. `found` tells when each was last modified or marked as used.

    A time in the future was set by a container, which owns its environment: it counts from now on.
    """
    touched = frozenset(name for name, modified in found.items() if name in used or modified > now)
    expired = {
        name for name, modified in found.items() if now - modified >= min(keep_seconds, ENVIRONMENT_SECONDS)
    }
    return EnvironmentDecision(removed=frozenset(expired) - touched, touched=touched)
