"""A launcher without processes, for tests of whoever uses one: instances do what the test says."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from moorage.launchers.base import InstanceSpec, InstanceState, InstanceStatus, LauncherError
from moorage.launchers.board import StateBoard
from moorage.launchers.lifecycle import status_after_death

Behaviour = Literal["healthy", "hold", "fail"]


def _always_healthy(_: InstanceSpec) -> Behaviour:
    return "healthy"


def _local_port(number: int) -> tuple[str, int]:
    return "127.0.0.1", 10_000 + number


class MemoryLauncher:
    """Instances as mere states; the seam is `moorage.launchers.base.Launcher`.

    `behaviour` decides what every start (also a restart) of an instance does: `"healthy"` is in service at
    once, `"fail"` dies before it was healthy, `"hold"` stays in `STARTING` until the test calls `become_healthy`
    or `die`. It may be replaced at any time. `address` gives the n-th start its host and port, for tests whose
    container is real. `launched` and `stopped` are what was asked for, in order.
    """

    def __init__(
        self,
        *,
        behaviour: Callable[[InstanceSpec], Behaviour] = _always_healthy,
        address: Callable[[int], tuple[str, int]] = _local_port,
    ) -> None:
        self.behaviour = behaviour
        self.launched: list[InstanceSpec] = []
        self.stopped: list[str] = []
        self._address = address
        self._board = StateBoard()
        self._ever_healthy: set[str] = set()
        self._starts = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"<MemoryLauncher instances={len(self._board)}>"

    async def launch(self, spec: InstanceSpec) -> None:
        if self._closed:
            raise LauncherError("the launcher is shutting down and starts no more instances")
        if self._board.get(spec.instance_id) is None:
            self.launched.append(spec)
            self._start(InstanceState(spec=spec, status=InstanceStatus.STARTING))

    async def stop(self, instance_id: str, *, hurry: bool = False) -> None:
        if self._board.get(instance_id) is not None:
            self.stopped.append(instance_id)
            self._ever_healthy.discard(instance_id)
            self._post(self.state(instance_id), InstanceStatus.STOPPING)
            self._post(self.state(instance_id), InstanceStatus.STOPPED)

    def watch(self) -> AsyncIterator[Sequence[InstanceState]]:
        return self._board.watch()

    async def close(self, *, hurry: bool = False) -> None:
        """Stop every instance and end every `watch`."""
        self._closed = True
        for state in self.states():
            await self.stop(state.spec.instance_id, hurry=hurry)
        self._board.close()

    def states(self) -> tuple[InstanceState, ...]:
        """Every instance there is, in the order of its first start."""
        return self._board.states()

    def state(self, instance_id: str) -> InstanceState:
        state = self._board.get(instance_id)
        if state is None:
            raise KeyError(instance_id)
        return state

    def become_healthy(self, instance_id: str) -> None:
        """Let a held start succeed."""
        self._ever_healthy.add(instance_id)
        self._post(self.state(instance_id), InstanceStatus.IN_SERVICE, failure=None)

    def become_unhealthy(self, instance_id: str) -> None:
        """Let an instance in service stop answering; `die` is what follows."""
        self._post(self.state(instance_id), InstanceStatus.UNHEALTHY)

    def die(
        self, instance_id: str, failure: str = "was killed by signal 9 (SIGKILL)", *, restart: bool = True
    ) -> None:
        """Let the container die: `FAILED` if it never was healthy, else a restart as `behaviour` says.

        With `restart=False` it stays in `RESTARTING` until `restart` is called.
        """
        state = self.state(instance_id)
        text = f'The container "{state.spec.container_hostname}" {failure}'
        after = status_after_death(
            ever_healthy=instance_id in self._ever_healthy, keep_trying=state.spec.keep_trying
        )
        if after is InstanceStatus.FAILED:
            self._post(state, after, failure=text)
            return
        self._post(state, after, failure=text, restarts=state.restarts + 1)
        if restart:
            self.restart(instance_id)

    def restart(self, instance_id: str) -> None:
        """End the backoff of an instance that died."""
        self._start(self.state(instance_id))

    def _start(self, before: InstanceState) -> None:
        self._starts += 1
        host, port = self._address(self._starts)
        instance_id = before.spec.instance_id
        self._post(
            before,
            InstanceStatus.STARTING,
            host=host,
            port=port,
            generation=before.generation + 1,
            log_tail=(),
        )
        match self.behaviour(before.spec):
            case "healthy":
                self.become_healthy(instance_id)
            case "fail":
                self.die(instance_id, "exited with status 1", restart=False)
            case "hold":
                pass

    def _post(self, before: InstanceState, status: InstanceStatus, **changes: Any) -> None:
        self._board.post(replace(before, status=status, **changes))
