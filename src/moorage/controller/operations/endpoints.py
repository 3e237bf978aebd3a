"""CreateEndpoint, DescribeEndpoint, ListEndpoints, UpdateEndpoint, DeleteEndpoint.

They write what is wanted and wake the reconciler, which makes it so.
"""

import uuid
from collections.abc import Mapping
from typing import Any

from moorage.controller.operations import base
from moorage.controller.operations.base import Call, Params
from moorage.controller.operations.deployment import check_deployment_config
from moorage.controller.operations.endpoint_configs import model_names, variants_of
from moorage.controller.operations.endpoint_description import describe
from moorage.errors import ValidationException
from moorage.resources import (
    Definition,
    Endpoint,
    EndpointAddress,
    EndpointConfig,
    EndpointStatus,
    Model,
    address_of,
)

UPDATABLE = (EndpointStatus.IN_SERVICE, EndpointStatus.OUT_OF_SERVICE, EndpointStatus.UPDATE_ROLLBACK_FAILED)
DELETABLE = (*UPDATABLE, EndpointStatus.FAILED, EndpointStatus.SYSTEM_UPDATING)

_MEMBERS_OF_ONE_UPDATE = (
    "RetainAllVariantProperties",
    "ExcludeRetainedVariantProperties",
    "RetainDeploymentConfig",
)


async def create_endpoint(call: Call, params: Params) -> Params:
    check_deployment_config(params.get("DeploymentConfig"))
    tags = base.tags_of(params)
    await _deployable_config(call, params["EndpointConfigName"])
    endpoint = Endpoint(
        account_id=call.account_id,
        name=params["EndpointName"],
        arn=call.arn(Endpoint, params["EndpointName"]),
        status=EndpointStatus.CREATING,
        endpoint_config_name=params["EndpointConfigName"],
        deployment_id=None,
        target_config_name=params["EndpointConfigName"],
        target_deployment_id=uuid.uuid4().hex,
        creation_time=call.time,
        last_modified_time=call.time,
        failure_reason=None,
        deployed=None,
        definition=base.definition_of(params),
    )
    if not await call.store.create(endpoint, tags):
        raise base.already_exists(Endpoint, endpoint.arn)
    call.wake(endpoint.account_id, endpoint.name)
    return {"EndpointArn": endpoint.arn}


def address_in(operation: str, params: Params, *, region: str) -> EndpointAddress | None:
    """What the ARN says by which a request names its endpoint, in an operation that takes one.

    Raises:
        ValidationException: it is of another region.
    """
    name = params.get("EndpointName")
    address = address_of(name) if operation == "DescribeEndpoint" and name is not None else None
    if address is not None and address.region != region:
        raise base.not_found(Endpoint, address.arn)
    return address


async def describe_endpoint(call: Call, params: Params) -> Params:
    endpoint = await call.existing(Endpoint, params["EndpointName"])
    target = None
    if endpoint.target_config_name is not None:
        target = await call.store.get(EndpointConfig, call.account_id, endpoint.target_config_name)
    counts = call.instance_counts(endpoint.account_id, endpoint.name)
    return describe(endpoint, counts=counts, target=None if target is None else target.definition)


async def list_endpoints(call: Call, params: Params) -> Params:
    page = await call.store.page(Endpoint, call.account_id, base.list_query(params))
    return base.listing("Endpoints", page, _summary)


async def update_endpoint(call: Call, params: Params) -> Params:
    check_deployment_config(params.get("DeploymentConfig"))
    while True:
        endpoint = await call.existing(Endpoint, params["EndpointName"])
        _require_updatable(endpoint)
        config = await _deployable_config(call, params["EndpointConfigName"])
        _require_compatible(endpoint, config)
        updated = await call.store.transition(
            endpoint,
            UPDATABLE,
            status=EndpointStatus.UPDATING,
            target_config_name=config.name,
            target_deployment_id=uuid.uuid4().hex,
            last_modified_time=call.time,
            failure_reason=None,
            definition=_updated_definition(endpoint.definition, params),
        )
        if updated is not None:  # otherwise it has changed since it was read: look again
            call.wake(updated.account_id, updated.name)
            return {"EndpointArn": updated.arn}


async def delete_endpoint(call: Call, params: Params) -> Params:
    while True:
        endpoint = await call.existing(Endpoint, params["EndpointName"])
        if endpoint.status not in DELETABLE:
            raise _in_progress(endpoint)
        deleted = await call.store.transition(
            endpoint, DELETABLE, status=EndpointStatus.DELETING, last_modified_time=call.time
        )
        if deleted is not None:
            call.wake(deleted.account_id, deleted.name)
            return {}


def _summary(endpoint: Endpoint) -> Params:
    return {
        "EndpointName": endpoint.name,
        "EndpointArn": endpoint.arn,
        "CreationTime": endpoint.creation_time,
        "LastModifiedTime": endpoint.last_modified_time,
        "EndpointStatus": endpoint.status,
    }


async def _deployable_config(call: Call, name: str) -> EndpointConfig:
    """The configuration, with all its models still there.

    Raises:
        ValidationException: it cannot be deployed.
    """
    config = await call.existing(EndpointConfig, name)
    for model_name in model_names(config.definition):
        await call.existing(Model, model_name)
    for variant in variants_of(config.definition):
        if "ModelName" not in variant:
            raise ValidationException(
                f'Variant "{variant["VariantName"]}" of endpoint configuration "{config.arn}" names no model. '
                "It is meant for inference components, which this server does not have."
            )
    return config


def _require_updatable(endpoint: Endpoint) -> None:
    if endpoint.status is EndpointStatus.FAILED:
        raise ValidationException(
            f'Cannot update endpoint "{endpoint.arn}" because its status is Failed. '
            "DeleteEndpoint is the only operation that can be performed on a failed endpoint."
        )
    if endpoint.status not in UPDATABLE:
        raise _in_progress(endpoint)


def _in_progress(endpoint: Endpoint) -> ValidationException:
    return ValidationException(f'Cannot update in-progress endpoint "{endpoint.arn}".')


def _require_compatible(endpoint: Endpoint, config: EndpointConfig) -> None:
    if endpoint.deployed is None:
        return
    if _is_serverless(config.definition) and not _is_serverless(endpoint.deployed["EndpointConfig"]):
        raise ValidationException(
            f'Cannot update endpoint "{endpoint.arn}" from instances to ServerlessConfig; '
            "only the other direction is supported."
        )


def _is_serverless(config: Mapping[str, Any]) -> bool:
    return any("ServerlessConfig" in variant for variant in config["ProductionVariants"])


def _updated_definition(definition: Definition, params: Params) -> Definition:
    """The request that created the endpoint, with what the latest update says about deployment."""
    updated = {name: value for name, value in definition.items() if name not in _MEMBERS_OF_ONE_UPDATE}
    updated |= {name: params[name] for name in _MEMBERS_OF_ONE_UPDATE if name in params}
    if "DeploymentConfig" in params:
        updated["DeploymentConfig"] = params["DeploymentConfig"]
    elif not params.get("RetainDeploymentConfig"):
        updated.pop("DeploymentConfig", None)
    return updated
