"""The rules of DeploymentConfig that the service model states in prose."""

from collections.abc import Mapping
from typing import Any

from moorage.errors import ValidationException


def check_deployment_config(config: Mapping[str, Any] | None) -> None:
    """Accepts what a deployment can follow.

    Raises:
        ValidationException: policies or sizes that contradict each other.
    """
    if config is None:
        return
    if "BlueGreenUpdatePolicy" in config and "RollingUpdatePolicy" in config:
        raise ValidationException(
            "DeploymentConfig can have BlueGreenUpdatePolicy or RollingUpdatePolicy, not both."
        )
    if "BlueGreenUpdatePolicy" in config:
        _check_blue_green(config["BlueGreenUpdatePolicy"])
    if "RollingUpdatePolicy" in config:
        _check_size("MaximumBatchSize", config["RollingUpdatePolicy"]["MaximumBatchSize"], 5, 50)
        rollback = config["RollingUpdatePolicy"].get("RollbackMaximumBatchSize")
        if rollback is not None:
            _check_size("RollbackMaximumBatchSize", rollback, 5, 100)


_STEPS = {"CANARY": ("CanarySize", 1, 50), "LINEAR": ("LinearStepSize", 10, 50)}


def _check_blue_green(policy: Mapping[str, Any]) -> None:
    routing = policy["TrafficRoutingConfiguration"]
    kind = routing["Type"]
    for step_kind, (name, least, most) in _STEPS.items():
        if kind == step_kind and name not in routing:
            raise ValidationException(f"TrafficRoutingConfiguration of type {kind} must have {name}.")
        if kind != step_kind and name in routing:
            raise ValidationException(f"TrafficRoutingConfiguration of type {kind} cannot have {name}.")
        if name in routing:
            _check_size(name, routing[name], least, most)
    waits = routing["WaitIntervalInSeconds"] + policy.get("TerminationWaitInSeconds", 0)
    if waits >= policy.get("MaximumExecutionTimeoutInSeconds", float("inf")):
        raise ValidationException(
            "MaximumExecutionTimeoutInSeconds must be larger than TerminationWaitInSeconds and "
            "WaitIntervalInSeconds together."
        )


def _check_size(name: str, size: Mapping[str, Any], least: int, most: int) -> None:
    if size["Type"] == "CAPACITY_PERCENT" and not least <= size["Value"] <= most:
        raise ValidationException(f"{name} must be from {least} to {most} percent, not {size['Value']}.")
