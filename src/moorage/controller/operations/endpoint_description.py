"""DescribeEndpoint's reply, from an endpoint and what runs for it."""

from collections.abc import Iterable, Mapping
from typing import Any

from moorage import control_characters
from moorage.resources import Definition, Endpoint, EndpointStatus

_LONGEST_FAILURE_REASON = 1024

_OF_THE_CONFIG = ("AsyncInferenceConfig", "ExplainerConfig", "MetricsConfig", "CrossRegionTrafficConfig")
"""Members of the configuration in service that are shown as they are."""

_OF_THE_VARIANT = (
    "ManagedInstanceScaling",
    "RoutingConfig",
    "CapacityReservationConfig",
    "AcceleratorPartitionLayouts",
)

_VARIANT_LISTS = ("ProductionVariants", "ShadowProductionVariants")


def describe(endpoint: Endpoint, *, counts: Mapping[str, int], target: Definition | None) -> dict[str, Any]:
    """`counts` are the running instances by variant; `target` is the configuration on its way in, if it exists."""
    reply: dict[str, Any] = {
        "EndpointName": endpoint.name,
        "EndpointArn": endpoint.arn,
        "EndpointConfigName": endpoint.endpoint_config_name,
        "EndpointStatus": endpoint.status,
        "CreationTime": endpoint.creation_time,
        "LastModifiedTime": endpoint.last_modified_time,
        "LastDeploymentConfig": endpoint.definition.get("DeploymentConfig"),
    }
    if endpoint.failure_reason:
        # A container's last lines and the names in an archive can be in it.
        reason = control_characters.plain(endpoint.failure_reason)
        reply["FailureReason"] = reason[:_LONGEST_FAILURE_REASON]
    if endpoint.deployed is not None:
        reply |= _in_service(endpoint.deployed, counts)
    if endpoint.target_config_name and endpoint.status in (EndpointStatus.CREATING, EndpointStatus.UPDATING):
        reply["PendingDeploymentSummary"] = _pending(endpoint, target or {}, counts)
    return reply


def _in_service(deployed: Definition, counts: Mapping[str, int]) -> dict[str, Any]:
    config = deployed["EndpointConfig"]
    members: dict[str, Any] = {name: config.get(name) for name in _OF_THE_CONFIG}
    if "DataCaptureConfig" in config:
        members["DataCaptureConfig"] = _data_capture(config["DataCaptureConfig"])
    for name in _VARIANT_LISTS:
        configured = {variant["VariantName"]: variant for variant in config.get(name, [])}
        if deployed.get(name):
            members[name] = [
                _deployed_variant(variant, configured.get(variant["VariantName"], {}), counts)
                for variant in deployed[name]
            ]
    return members


def _deployed_variant(
    variant: Mapping[str, Any], configured: Mapping[str, Any], counts: Mapping[str, int]
) -> dict[str, Any]:
    name = variant["VariantName"]
    weight = variant.get("InitialVariantWeight", 1.0)
    summary: dict[str, Any] = {
        "VariantName": name,
        "DeployedImages": _images(variant.get("Images", ())),
        "CurrentWeight": weight,
        "DesiredWeight": weight,
        **{member: configured.get(member) for member in _OF_THE_VARIANT},
    }
    if "ServerlessConfig" in configured:
        serverless = configured["ServerlessConfig"]
        return summary | {"CurrentServerlessConfig": serverless, "DesiredServerlessConfig": serverless}
    return summary | {
        "CurrentInstanceCount": counts.get(name, 0),
        "DesiredInstanceCount": variant.get("InitialInstanceCount"),
    }


def _images(images: Iterable[Any]) -> list[Mapping[str, Any]]:
    return [{"SpecifiedImage": image} if isinstance(image, str) else image for image in images]


def _data_capture(config: Mapping[str, Any]) -> dict[str, Any]:
    """CaptureStatus tells whether capture works, which it does not yet: the configuration is only kept."""
    return {
        "EnableCapture": config.get("EnableCapture", True),
        "CaptureStatus": "Stopped",
        "CurrentSamplingPercentage": config["InitialSamplingPercentage"],
        "DestinationS3Uri": config["DestinationS3Uri"],
        "KmsKeyId": config.get("KmsKeyId", ""),
    }


def _pending(endpoint: Endpoint, target: Definition, counts: Mapping[str, int]) -> dict[str, Any]:
    # The counts tell variants apart, not deployments: only while creating are they sure to be of this one.
    own_counts = counts if endpoint.status is EndpointStatus.CREATING else {}
    summary: dict[str, Any] = {
        "EndpointConfigName": endpoint.target_config_name,
        "StartTime": endpoint.last_modified_time,
    }
    for name in _VARIANT_LISTS:
        if target.get(name):
            summary[name] = [_pending_variant(variant, endpoint, own_counts) for variant in target[name]]
    return summary


def _pending_variant(
    variant: Mapping[str, Any], endpoint: Endpoint, counts: Mapping[str, int]
) -> dict[str, Any]:
    return {
        "VariantName": variant["VariantName"],
        "DesiredWeight": variant.get("InitialVariantWeight"),
        "CurrentInstanceCount": counts.get(variant["VariantName"]),
        "DesiredInstanceCount": variant.get("InitialInstanceCount"),
        "InstanceType": variant.get("InstanceType"),
        "DesiredServerlessConfig": variant.get("ServerlessConfig"),
        "VariantStatus": [{"Status": "Creating", "StartTime": endpoint.last_modified_time}],
        **{member: variant.get(member) for member in _OF_THE_VARIANT},
    }
