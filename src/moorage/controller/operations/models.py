"""CreateModel, DescribeModel, ListModels, DeleteModel."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moorage.controller.operations import base
from moorage.controller.operations.base import Call, Params
from moorage.errors import ServiceUnavailable, ValidationException
from moorage.resources import ROLE_EXISTS, Model
from moorage.storage.objects import (
    ObjectAccessDenied,
    ObjectError,
    ObjectStore,
    ObjectStoreUnavailable,
)

Container = Mapping[str, Any]
logger = logging.getLogger(__name__)

_MOST_ENVIRONMENT_BYTES = 32 * 1024


async def create_model(call: Call, params: Params) -> Params:
    containers = _containers(params)
    for container in containers:
        _check_container(container)
    _check_together(params, containers)
    tags = base.tags_of(params)
    name, role_arn = params["ModelName"], params.get("ExecutionRoleArn")
    arn = call.arn(Model, name)
    definition = _with_defaults(base.definition_of(params))
    if await call.check_role(role_arn, source_arn=arn):
        definition[ROLE_EXISTS] = True
    model = Model(
        account_id=call.account_id,
        name=name,
        arn=arn,
        creation_time=call.time,
        definition=definition,
    )
    if call.objects is not None:
        objects = call.objects.acting_as(call.account_id, role_arn, source_arn=arn)
        for url in _model_data(containers):
            await _check_model_data(objects, url)
    if not await call.store.create(model, tags):
        raise base.already_exists(Model, model.arn)
    return {"ModelArn": model.arn}


async def describe_model(call: Call, params: Params) -> Params:
    model = await call.existing(Model, params["ModelName"])
    return {**model.definition, "ModelArn": model.arn, "CreationTime": model.creation_time}


async def list_models(call: Call, params: Params) -> Params:
    page = await call.store.page(Model, call.account_id, base.list_query(params))
    return base.listing("Models", page, _summary)


async def delete_model(call: Call, params: Params) -> Params:
    model = await call.existing(Model, params["ModelName"])
    await call.store.delete(model)
    return {}


async def _check_model_data(objects: ObjectStore, url: str) -> None:
    """Raises `ValidationException`, in the same words whether there is nothing at the URL or the role may not read
    it: else whoever may make models could find out what others have."""
    try:
        found = await objects.exists(url)
    except ObjectStoreUnavailable as error:
        raise ServiceUnavailable(
            f"The model data could not be looked for: {error}. Please try again."
        ) from error
    except ObjectAccessDenied as error:
        logger.info("model data at %s is not to be read: %s", url, error)
        found = False
    except ObjectError as error:
        raise ValidationException(f"Could not find model data at {url}: {error}.") from error
    if not found:
        raise ValidationException(
            f"Could not find model data at {url}. Please ensure that there is an object located at the URL and that "
            "the role passed to CreateModel has permissions to download the object."
        )


def _summary(model: Model) -> Params:
    return {"ModelName": model.name, "ModelArn": model.arn, "CreationTime": model.creation_time}


def _with_defaults(definition: Params) -> Params:
    definition.setdefault("EnableNetworkIsolation", False)
    for container in _containers(definition):
        container.setdefault("Mode", "SingleModel")
    return definition


def _containers(params: Params) -> list[dict[str, Any]]:
    if base.require_one_of("A model", params, ("PrimaryContainer", "Containers")) == "PrimaryContainer":
        return [params["PrimaryContainer"]]
    containers: list[dict[str, Any]] = params["Containers"]
    return containers


# --- One container -------------------------------------------------------------------------------------


def _check_container(container: Container) -> None:
    if base.require_one_of("A container", container, ("Image", "ModelPackageName")) == "ModelPackageName":
        raise ValidationException(f'Could not find model package "{container["ModelPackageName"]}".')
    if "ModelDataUrl" in container and "ModelDataSource" in container:
        raise ValidationException("A container can have ModelDataUrl or ModelDataSource, not both.")
    for source in _sources(container):
        _check_source(source)
    channels = [source["ChannelName"] for source in container.get("AdditionalModelDataSources", [])]
    if len(set(channels)) < len(channels):
        raise ValidationException("The ChannelNames of AdditionalModelDataSources must be unique.")
    _check_image_config(container.get("ImageConfig", {}))
    _check_mode(container)
    for endpoint in container.get("ContainerMetricsConfig", {}).get("MetricsEndpoints", []):
        base.require_publish_frequency(endpoint)


def _sources(container: Container) -> Iterator[Mapping[str, Any]]:
    if "ModelDataSource" in container:
        if "S3DataSource" not in container["ModelDataSource"]:
            raise ValidationException("ModelDataSource must have S3DataSource.")
        yield container["ModelDataSource"]["S3DataSource"]
    for source in container.get("AdditionalModelDataSources", []):
        yield source["S3DataSource"]


def _check_source(source: Mapping[str, Any]) -> None:
    prefix = source["S3DataType"] == "S3Prefix"
    if prefix and not source["S3Uri"].endswith("/"):
        raise ValidationException(f"The S3Uri of an S3Prefix must end with a slash: {source['S3Uri']}")
    if prefix and source["CompressionType"] == "Gzip":
        raise ValidationException("CompressionType Gzip needs S3DataType S3Object.")


def _check_image_config(config: Mapping[str, Any]) -> None:
    if "RepositoryAuthConfig" in config and config["RepositoryAccessMode"] != "Vpc":
        raise ValidationException("RepositoryAuthConfig needs RepositoryAccessMode Vpc.")


def _check_mode(container: Container) -> None:
    if container.get("Mode") == "MultiModel":
        if "ModelDataUrl" not in container:
            raise ValidationException("A container in MultiModel mode must have ModelDataUrl, an S3 prefix.")
    elif "MultiModelConfig" in container:
        raise ValidationException("MultiModelConfig needs Mode MultiModel.")


# --- All containers together ---------------------------------------------------------------------------


def _check_together(params: Params, containers: Sequence[Container]) -> None:
    environment = sum(
        len(key.encode()) + len(value.encode())
        for container in containers
        for key, value in container.get("Environment", {}).items()
    )
    if environment > _MOST_ENVIRONMENT_BYTES:
        raise ValidationException(
            "The keys and values of all Environment maps together must not exceed 32 KB; "
            f"they have {environment} bytes."
        )
    if "Containers" in params:
        direct = params.get("InferenceExecutionConfig", {}).get("Mode") == "Direct"
        _check_hostnames(containers, direct=direct)
        if sum(container.get("Mode") == "MultiModel" for container in containers) > 1:
            raise ValidationException(
                "More than one container in MultiModel mode is not supported with inference pipeline."
            )


def _check_hostnames(containers: Sequence[Container], *, direct: bool) -> None:
    hostnames = [
        container["ContainerHostname"] for container in containers if "ContainerHostname" in container
    ]
    if (hostnames or direct) and len(hostnames) < len(containers):
        reason = "InferenceExecutionConfig Mode is Direct" if direct else "one container has it"
        raise ValidationException(f"Every container must have ContainerHostname because {reason}.")
    if len(set(hostnames)) < len(hostnames):
        raise ValidationException("Every container must have a ContainerHostname of its own.")


def _model_data(containers: Sequence[Container]) -> Iterator[str]:
    """The URLs that must exist. A multi-model prefix need not: its artifacts may come later."""
    for container in containers:
        if "ModelDataUrl" in container and container.get("Mode") != "MultiModel":
            yield container["ModelDataUrl"]
        for source in _sources(container):
            yield source["S3Uri"]
