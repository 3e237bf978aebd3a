"""Which permissions an operation of SageMaker's control plane needs: actions, resources and what conditions see.

Source: "Actions, resources, and condition keys for Amazon SageMaker" in the service authorization reference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moorage.auth.policy import Context
from moorage.resources import ResourceKind, arn
from moorage.storage.base import ResourceStore

Params = Mapping[str, Any]

_ABOUT: Mapping[str, Sequence[tuple[ResourceKind, str]]] = {
    "CreateModel": [("model", "ModelName")],
    "DescribeModel": [("model", "ModelName")],
    "DeleteModel": [("model", "ModelName")],
    "CreateEndpointConfig": [("endpoint-config", "EndpointConfigName")],
    "DescribeEndpointConfig": [("endpoint-config", "EndpointConfigName")],
    "DeleteEndpointConfig": [("endpoint-config", "EndpointConfigName")],
    "CreateEndpoint": [("endpoint", "EndpointName"), ("endpoint-config", "EndpointConfigName")],
    "UpdateEndpoint": [("endpoint", "EndpointName"), ("endpoint-config", "EndpointConfigName")],
    "DescribeEndpoint": [("endpoint", "EndpointName")],
    "DeleteEndpoint": [("endpoint", "EndpointName")],
}
_ON_ANY_ARN = ("AddTags", "ListTags", "DeleteTags")
_ON_EVERYTHING = ("ListModels", "ListEndpointConfigs", "ListEndpoints")

COVERED = frozenset((*_ABOUT, *_ON_ANY_ARN, *_ON_EVERYTHING))
"""A test compares with the operations there are."""


@dataclass(frozen=True, slots=True)
class Need:
    """Something that the caller must be allowed. `context` is what conditions may ask of it."""

    action: str
    resource: str
    context: Context


async def needs(
    operation: str, params: Params, *, account_id: str, region: str, store: ResourceStore
) -> list[Need]:
    """What the operation needs: an allowed action on each resource that it is about."""
    action = f"sagemaker:{operation}"
    asked = _request_context(params)
    if operation in _ON_EVERYTHING:
        return [Need(action, "*", asked)]
    if operation in _ON_ANY_ARN:
        arns = [params["ResourceArn"]]
    else:
        arns = [
            arn(kind, region=region, account_id=account_id, name=params[member])
            for kind, member in _ABOUT[operation]
        ]
    return [Need(action, each, {**asked, **await _resource_context(each, store)}) for each in arns]


def _request_context(params: Params) -> dict[str, str | tuple[str, ...]]:
    tags = {tag["Key"]: tag["Value"] for tag in params.get("Tags", ())}
    keys = tuple(tags) or tuple(params.get("TagKeys", ()))
    context: dict[str, str | tuple[str, ...]] = {
        f"aws:RequestTag/{key}": value for key, value in tags.items()
    }
    if keys:
        context["aws:TagKeys"] = keys
    return context


async def _resource_context(resource_arn: str, store: ResourceStore) -> dict[str, str]:
    tags = await store.get_tags(resource_arn) or {}
    return {f"aws:ResourceTag/{key}": value for key, value in tags.items()}
