"""The states of all instances of a launcher, and those who watch them."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from moorage.launchers.base import InstanceState, InstanceStatus
from moorage.launchers.lifecycle import check_transition


class StateBoard:
    """Holds the latest state of each instance and tells every watcher of the changes.

    A watcher that reads slowly finds only the latest state of each instance, so none can make it grow.
    """

    def __init__(self) -> None:
        self._states: dict[str, InstanceState] = {}
        self._watchers: set[_Watcher] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<StateBoard instances={len(self._states)} watchers={len(self._watchers)}>"

    def __len__(self) -> int:
        return len(self._states)

    def get(self, instance_id: str) -> InstanceState | None:
        return self._states.get(instance_id)

    def states(self) -> tuple[InstanceState, ...]:
        return tuple(self._states.values())

    def post(self, state: InstanceState) -> None:
        """Make `state` the instance's latest. A stopped instance is reported and then forgotten."""
        instance_id = state.spec.instance_id
        before = self._states.get(instance_id)
        check_transition(before.status if before else None, state.status)
        if state.status is InstanceStatus.STOPPED:
            del self._states[instance_id]
        else:
            self._states[instance_id] = state
        for watcher in self._watchers:
            watcher.changed[instance_id] = state
            watcher.wake.set()

    async def watch(self) -> AsyncIterator[Sequence[InstanceState]]:
        """Everything once, then what changed since the last look; ends after `close`."""
        watcher = _Watcher()
        self._watchers.add(watcher)
        try:
            yield self.states()
            while True:
                if not watcher.changed and not self._closed:
                    await watcher.wake.wait()
                watcher.wake.clear()
                changed, watcher.changed = tuple(watcher.changed.values()), {}
                if changed:
                    yield changed
                elif self._closed:
                    return
        finally:
            self._watchers.discard(watcher)

    def close(self) -> None:
        """Let every watcher end once it has seen what there is."""
        self._closed = True
        for watcher in self._watchers:
            watcher.wake.set()


class _Watcher:
    def __init__(self) -> None:
        self.changed: dict[str, InstanceState] = {}
        self.wake = asyncio.Event()
