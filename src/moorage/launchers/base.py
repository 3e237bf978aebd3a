"""The seam between the controller and whatever keeps instances alive.

An *instance* is one running copy of a variant's container. A launcher starts it, probes `GET /ping`, restarts
it when it dies after it was healthy, and reports every change of state. It decides nothing about endpoints:
the controller does that from the states it is told.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSpec:
    """Everything needed to start an instance, and to tell later what it was started for.

    `argv` is the container's command line, `{port}` in it the port to listen on, and `environment` what the
    container sees besides the platform's variables (`SAGEMAKER_BIND_TO_PORT` and its kin), which the launcher adds.
    `base_dir` is the instance's own directory, standing for `/opt/ml`: the model is already unpacked in
    `<base_dir>/model`. Times in seconds.
    """

    instance_id: str
    account_id: str
    endpoint_name: str
    variant_name: str
    deployment_id: str
    container_hostname: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    base_dir: str
    log_file: str
    startup_timeout_seconds: float
    network_isolation: bool = False
    """The container may call nobody, whatever the server's setting is (EnableNetworkIsolation)."""
    role_arn: str | None = None
    """The execution role of the model; None: it has none."""
    role_exists: bool = False
    """Whether that role existed when the model was made."""
    credentials_secret: str = field(default="", repr=False)
    """By which the instance asks for the credentials of the role; empty: it has none."""
    cache_dir: str = ""
    """What the instances of a variant share and find again at their next start; empty: nothing."""
    keep_trying: bool = False
    """Restart with backoff even when the instance dies before it was ever healthy (after a restart of
    the platform: the endpoint worked before, so its failing now is no verdict on it)."""


class InstanceStatus(StrEnum):
    STARTING = "Starting"
    IN_SERVICE = "InService"
    UNHEALTHY = "Unhealthy"  # was healthy; answers /ping no longer, about to be replaced
    RESTARTING = "Restarting"  # died; waits out its backoff
    FAILED = "Failed"  # never became healthy and is not tried again; `failure` says why
    STOPPING = "Stopping"
    STOPPED = "Stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceState:
    """What a launcher knows of an instance at one moment.

    `host`/`port` is where the container answers; the port is 0 until one was chosen and may change with a restart.
    `network` names the network namespace of the container in which that is (`moorage.network_namespace`), and is
    empty where it is the machine's. `failure` is a sentence for people: what happened, and the last lines of the
    log. `generation` grows with every start of the container, `restarts` counts the deaths.
    """

    spec: InstanceSpec
    status: InstanceStatus
    host: str = ""
    port: int = 0
    network: str = ""
    generation: int = 0
    restarts: int = 0
    failure: str | None = None
    log_tail: tuple[str, ...] = field(default=())


class LauncherError(Exception):
    """A launcher cannot do what was asked; the text says why."""


class LauncherUnavailable(LauncherError):
    """The process that hosts the launcher cannot be reached. The instances live or die with it, not with us."""


class Launcher(Protocol):
    """Starts and stops instances. All methods are idempotent by `instance_id`."""

    async def launch(self, spec: InstanceSpec) -> None:
        """Begin starting an instance; returns before it is healthy. Its progress is in `watch`."""

    async def stop(self, instance_id: str, *, hurry: bool = False) -> None:
        """Stop an instance: SIGTERM, SIGKILL 30 s later (at once when `hurry`); returns when it is gone."""

    def watch(self) -> AsyncIterator[Sequence[InstanceState]]:
        """First the state of every instance there is (maybe none), then the changed ones, until closed.

        An instance that is gone is reported once more as `STOPPED`. A watcher that reads slowly sees only the
        latest state of each instance. Where the launcher is in another process and that goes away, the iteration
        raises `LauncherUnavailable`; whoever watches calls `watch` again and gets the complete list anew.
        """
