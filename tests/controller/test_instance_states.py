"""Instances by their endpoints and deployments."""

from dataclasses import replace

from moorage.controller.instance_states import InstanceStates
from moorage.launchers.base import InstanceSpec, InstanceState, InstanceStatus

ACCOUNT = "111122223333"


def state(instance_id: str, endpoint: str, deployment: str, *, account_id: str = ACCOUNT) -> InstanceState:
    spec = InstanceSpec(
        instance_id=instance_id,
        account_id=account_id,
        endpoint_name=endpoint,
        variant_name="v",
        deployment_id=deployment,
        container_hostname="primary",
        argv=("serve",),
        environment={},
        base_dir="/opt/ml",
        log_file="/log",
        startup_timeout_seconds=1.0,
    )
    return InstanceState(spec=spec, status=InstanceStatus.STARTING)


def test_instances_are_found_by_endpoint_and_by_deployment() -> None:
    old, new = state("i-1", "churn", "d-1"), state("i-2", "churn", "d-2")
    other = state("i-3", "churn", "d-3", account_id="444455556666")
    states = InstanceStates((old, new, other))
    assert states.of_endpoint(ACCOUNT, "churn") == [old, new]
    assert states.of_deployment("d-3") == [other]
    assert (states.of_endpoint(ACCOUNT, "none"), states.of_deployment("none")) == ([], [])
    assert states.ids() == {"i-1", "i-2", "i-3"}


def test_the_latest_state_counts() -> None:
    before = state("i-1", "churn", "d-1")
    states = InstanceStates((before,))
    after = replace(before, status=InstanceStatus.IN_SERVICE)
    assert states.take_in(after) == (ACCOUNT, "churn")
    assert list(states) == states.of_endpoint(ACCOUNT, "churn") == states.of_deployment("d-1") == [after]


def test_a_stopped_instance_is_forgotten() -> None:
    kept, gone = state("i-1", "churn", "d-1"), state("i-2", "churn", "d-1")
    states = InstanceStates((kept, gone))
    stopped = replace(gone, status=InstanceStatus.STOPPED)
    for _ in range(2):
        assert states.take_in(stopped) == (ACCOUNT, "churn")
        assert list(states) == states.of_endpoint(ACCOUNT, "churn") == states.of_deployment("d-1") == [kept]
    states.take_in(replace(kept, status=InstanceStatus.STOPPED))
    assert repr(states) == "<InstanceStates 0 instances of 0 endpoints>"
