"""What the launcher has told of each instance, by the things that are asked: an endpoint's, a deployment's.

There may be thousands, and each change of one asks for those of its endpoint.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from moorage.launchers.base import InstanceState, InstanceStatus

EndpointKey = tuple[str, str]
"""Account id and endpoint name."""

K = TypeVar("K")


class InstanceStates:
    """The latest state of every instance that is not stopped. An instance's endpoint and deployment never change."""

    def __init__(self, states: Sequence[InstanceState] = ()) -> None:
        self._by_id: dict[str, InstanceState] = {}
        self._by_endpoint: dict[EndpointKey, dict[str, InstanceState]] = {}
        self._by_deployment: dict[str, dict[str, InstanceState]] = {}
        for state in states:
            self.take_in(state)

    def __repr__(self) -> str:
        return f"<InstanceStates {len(self._by_id)} instances of {len(self._by_endpoint)} endpoints>"

    def __iter__(self) -> Iterator[InstanceState]:
        return iter(self._by_id.values())

    def take_in(self, state: InstanceState) -> EndpointKey:
        """What an instance has become. Returns its endpoint."""
        spec = state.spec
        key = (spec.account_id, spec.endpoint_name)
        if state.status is InstanceStatus.STOPPED:
            self._by_id.pop(spec.instance_id, None)
            _discard(self._by_endpoint, key, spec.instance_id)
            _discard(self._by_deployment, spec.deployment_id, spec.instance_id)
        else:
            self._by_id[spec.instance_id] = state
            self._by_endpoint.setdefault(key, {})[spec.instance_id] = state
            self._by_deployment.setdefault(spec.deployment_id, {})[spec.instance_id] = state
        return key

    def find(self, instance_id: str) -> InstanceState | None:
        return self._by_id.get(instance_id)

    def ids(self) -> set[str]:
        return set(self._by_id)

    def of_endpoint(self, account_id: str, endpoint_name: str) -> list[InstanceState]:
        return list(self._by_endpoint.get((account_id, endpoint_name), _NONE).values())

    def of_deployment(self, deployment_id: str) -> list[InstanceState]:
        return list(self._by_deployment.get(deployment_id, _NONE).values())


_NONE: Mapping[str, InstanceState] = {}


def _discard(index: dict[K, dict[str, InstanceState]], key: K, instance_id: str) -> None:
    states = index.get(key, {})
    states.pop(instance_id, None)
    if not states:
        index.pop(key, None)
