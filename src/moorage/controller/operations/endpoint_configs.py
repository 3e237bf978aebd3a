"""CreateEndpointConfig, DescribeEndpointConfig, ListEndpointConfigs, DeleteEndpointConfig.

The rules between members are stated in the prose of the service model and in the developer guide. Where AWS's
words are known they are used.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from moorage.controller.operations import base
from moorage.controller.operations.base import Call, Params
from moorage.errors import ValidationException
from moorage.resources import EndpointConfig, Model
from moorage.wire import header_text

Variant = Mapping[str, Any]

_INSTANCE_MEMBERS = (
    "InstanceType",
    "InstancePools",
    "InitialInstanceCount",
    "AcceleratorType",
    "VolumeSizeInGB",
    "ManagedInstanceScaling",
    "RoutingConfig",
    "CapacityReservationConfig",
    "AcceleratorPartitionLayouts",
    "VariantInstanceProvisionTimeoutInSeconds",
)
"""Members of a variant that runs on instances: they make no sense with ServerlessConfig."""

_NOT_WITH_SERVERLESS = (
    "ShadowProductionVariants",
    "DataCaptureConfig",
    "AsyncInferenceConfig",
    "CrossRegionTrafficConfig",
    "VpcConfig",
)


async def create_endpoint_config(call: Call, params: Params) -> Params:
    _check_variants(params)
    _check_config(params)
    tags = base.tags_of(params)
    for name in model_names(params):
        await call.existing(Model, name)
    config = EndpointConfig(
        account_id=call.account_id,
        name=params["EndpointConfigName"],
        arn=call.arn(EndpointConfig, params["EndpointConfigName"]),
        creation_time=call.time,
        definition=_with_defaults(base.definition_of(params)),
    )
    await call.check_role(params.get("ExecutionRoleArn"), source_arn=config.arn)
    if not await call.store.create(config, tags):
        raise base.already_exists(EndpointConfig, config.arn)
    return {"EndpointConfigArn": config.arn}


async def describe_endpoint_config(call: Call, params: Params) -> Params:
    config = await call.existing(EndpointConfig, params["EndpointConfigName"])
    return {**config.definition, "EndpointConfigArn": config.arn, "CreationTime": config.creation_time}


async def list_endpoint_configs(call: Call, params: Params) -> Params:
    page = await call.store.page(EndpointConfig, call.account_id, base.list_query(params))
    return base.listing("EndpointConfigs", page, _summary)


async def delete_endpoint_config(call: Call, params: Params) -> Params:
    config = await call.existing(EndpointConfig, params["EndpointConfigName"])
    await call.store.delete(config)
    return {}


def variants_of(definition: Mapping[str, Any]) -> list[Variant]:
    """Production and shadow variants."""
    return [*definition["ProductionVariants"], *definition.get("ShadowProductionVariants", [])]


def model_names(definition: Mapping[str, Any]) -> list[str]:
    """The models that the variants name, each once."""
    names: dict[str, None] = {}
    for variant in variants_of(definition):
        if "ModelName" in variant:
            names[variant["ModelName"]] = None
        for pool in variant.get("InstancePools", []):
            if "ModelNameOverride" in pool:
                names[pool["ModelNameOverride"]] = None
    return list(names)


def _summary(config: EndpointConfig) -> Params:
    return {
        "EndpointConfigName": config.name,
        "EndpointConfigArn": config.arn,
        "CreationTime": config.creation_time,
    }


def _with_defaults(definition: Params) -> Params:
    definition.setdefault("EnableNetworkIsolation", False)
    for variant in (*definition["ProductionVariants"], *definition.get("ShadowProductionVariants", [])):
        variant.setdefault("InitialVariantWeight", 1.0)
    if "DataCaptureConfig" in definition:
        definition["DataCaptureConfig"].setdefault("EnableCapture", True)
    return definition


# --- Variants ------------------------------------------------------------------------------------------


def _check_variants(params: Params) -> None:
    variants = variants_of(params)
    names = [variant["VariantName"] for variant in variants]
    if len(set(names)) < len(names):
        raise ValidationException("The VariantNames of an endpoint configuration must be unique.")
    for variant in variants:
        if "ServerlessConfig" in variant:
            _check_serverless(variant)
        else:
            _check_instances(variant)
        _check_routing(variant)
    _check_models(params, variants)


def _check_instances(variant: Variant) -> None:
    subject = _subject(variant)
    base.require_one_of(subject, variant, ("InstanceType", "InstancePools"))
    if "InitialInstanceCount" not in variant:
        raise ValidationException(f"{subject} must have InitialInstanceCount.")
    priorities = [pool["Priority"] for pool in variant.get("InstancePools", [])]
    if len(set(priorities)) < len(priorities):
        raise ValidationException(f"{subject} must give each of its InstancePools a Priority of its own.")
    scaling = variant.get("ManagedInstanceScaling")
    if scaling is not None:
        if "ModelName" in variant:
            raise ValidationException(
                "ManagedInstanceScaling is only supported for inference component endpoints."
            )
        if scaling.get("MinInstanceCount", 0) > scaling.get("MaxInstanceCount", float("inf")):
            raise ValidationException(f"{subject} has a MinInstanceCount above its MaxInstanceCount.")


def _check_serverless(variant: Variant) -> None:
    subject, config = _subject(variant), variant["ServerlessConfig"]
    for name in _INSTANCE_MEMBERS:
        if name in variant:
            raise ValidationException(f"{subject} can have ServerlessConfig or {name}, not both.")
    if config["MemorySizeInMB"] % 1024:
        raise ValidationException(
            f"{subject} has a MemorySizeInMB that is not one of 1024, 2048, 3072, 4096, 5120, 6144."
        )
    if config.get("ProvisionedConcurrency", 0) > config["MaxConcurrency"]:
        raise ValidationException(f"{subject} has a ProvisionedConcurrency above its MaxConcurrency.")
    if "ModelName" not in variant:
        raise ValidationException(f"{subject} must have ModelName because it has ServerlessConfig.")


def _check_routing(variant: Variant) -> None:
    routing = variant.get("RoutingConfig")
    if routing is None:
        return
    prefix_aware = routing["RoutingStrategy"] == "PREFIX_AWARE"
    config = routing.get("PrefixAwareRoutingConfig")
    if config is not None and not prefix_aware:
        raise ValidationException("PrefixAwareRoutingConfig needs RoutingStrategy PREFIX_AWARE.")
    if prefix_aware and not {"PrefixLength", "ConcurrencyThreshold"} <= set(config or ()):
        raise ValidationException(
            "RoutingStrategy PREFIX_AWARE needs PrefixAwareRoutingConfig with PrefixLength and ConcurrencyThreshold."
        )


def _check_models(params: Params, variants: Sequence[Variant]) -> None:
    """Either every variant names a model, or none does and inference components bring them."""
    without = [variant for variant in variants if "ModelName" not in variant]
    if not without:
        return
    if len(without) < len(variants):
        raise ValidationException(
            f"{_subject(without[0])} has no ModelName; either all variants or none must have one."
        )
    if "ExecutionRoleArn" not in params:
        raise ValidationException(
            f"{_subject(without[0])} has no ModelName. An endpoint configuration for inference components "
            "must have ExecutionRoleArn."
        )


def _subject(variant: Variant) -> str:
    return f'Variant "{variant["VariantName"]}"'


# --- The configuration ---------------------------------------------------------------------------------


def _check_config(params: Params) -> None:
    production, shadow = params["ProductionVariants"], params.get("ShadowProductionVariants", [])
    if shadow and (len(production), len(shadow)) != (1, 1):
        raise ValidationException(
            "With ShadowProductionVariants there must be exactly one production and one shadow variant."
        )
    if shadow and "AsyncInferenceConfig" in params:
        raise ValidationException("ShadowProductionVariants is not supported with AsyncInferenceConfig.")
    if "CrossRegionTrafficConfig" in params and "AsyncInferenceConfig" in params:
        raise ValidationException("CrossRegionTrafficConfig is not supported with AsyncInferenceConfig.")
    _check_output_paths(params)
    base.require_publish_frequency(params.get("MetricsConfig", {}))
    if any("ServerlessConfig" in variant for variant in (*production, *shadow)):
        _check_serverless_config(params)


def _check_output_paths(params: Params) -> None:
    """The replies of InvokeEndpointAsync name locations below these paths in headers."""
    output = params.get("AsyncInferenceConfig", {}).get("OutputConfig", {})
    for name in ("S3OutputPath", "S3FailurePath"):
        if not header_text.can_carry(output.get(name, "")):
            raise ValidationException(
                f"{name} must not have control characters: the reply of InvokeEndpointAsync could not name it."
            )


def _check_serverless_config(params: Params) -> None:
    for name in _NOT_WITH_SERVERLESS:
        if name in params:
            raise ValidationException(f"{name} is not supported with ServerlessConfig.")
    if params.get("EnableNetworkIsolation"):
        raise ValidationException("EnableNetworkIsolation is not supported with ServerlessConfig.")
    if len(params["ProductionVariants"]) > 1:
        raise ValidationException("With ServerlessConfig there must be exactly one production variant.")
