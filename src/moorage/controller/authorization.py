"""Which permissions an operation of SageMaker's control plane needs: actions, resources and what conditions see.

Source: "Actions, resources, and condition keys for Amazon SageMaker" in the service authorization reference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moorage.auth.access import compile_stored
from moorage.auth.authorizer import account_of, resource_tag_context
from moorage.auth.execution_roles import SERVICE, root_arn
from moorage.auth.policy import Context, Policy, PolicyKind
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
    "PutEndpointPolicy": [("endpoint", "EndpointName")],
    "GetEndpointPolicy": [("endpoint", "EndpointName")],
    "DeleteEndpointPolicy": [("endpoint", "EndpointName")],
}
_ON_POLICIES = ("PutEndpointPolicy", "GetEndpointPolicy", "DeleteEndpointPolicy")
_PASS_A_ROLE = ("CreateModel", "CreateEndpointConfig")
_ON_ANY_ARN = ("AddTags", "ListTags", "DeleteTags")
_ON_EVERYTHING = ("ListModels", "ListEndpointConfigs", "ListEndpoints")

COVERED = frozenset((*_ABOUT, *_ON_ANY_ARN, *_ON_EVERYTHING))
"""A test compares with the operations there are."""


@dataclass(frozen=True, slots=True)
class Need:
    """Something that the caller must be allowed. `context` is what conditions may ask of it, `policy` the resource's
    own; `advice` is for a caller that is not."""

    action: str
    resource: str
    context: Context
    policy: Policy | None = None
    advice: str = ""


async def needs(
    operation: str,
    params: Params,
    *,
    account_id: str,
    region: str,
    store: ResourceStore,
) -> list[Need]:
    """What the operation needs: an allowed action on each resource that it is about, all of `account_id`. Conditions
    see the tags of those only: by its own policies a caller could find out what tags another resource has."""
    action = f"sagemaker:{operation}"
    asked = _request_context(params)
    if operation in _ON_EVERYTHING:
        return [Need(action, "*", asked)]
    if operation in _ON_ANY_ARN:
        kind_of, slash, name = params["ResourceArn"].partition("/")
        arns = [f"{kind_of}{slash}{name.lower()}"]
    else:
        arns = [
            arn(kind, region=region, account_id=account_id, name=params[member])
            for kind, member in _ABOUT[operation]
        ]
    found = []
    for each in arns:
        tags, document = await store.tags_and_policy(each)
        context = asked
        if account_of(each) == account_id:
            context = {**asked, **resource_tag_context(tags or {})}
        policy = None
        if document is not None and _may_have_say(operation, each, account_id):
            policy = compile_stored(document, name=each, kind=PolicyKind.RESOURCE)
        found.append(Need(action, each, context, policy))
    if operation in _PASS_A_ROLE:
        found += _role_to_pass(operation, params, account_id)
    return found


def _role_to_pass(operation: str, params: Params, account_id: str) -> list[Need]:
    """What is made acts as its role, so the caller must be allowed to pass that: decided by the ARN, whether there is
    such a role or not. A model without a role acts as its account."""
    role_arn, advice = params.get("ExecutionRoleArn"), ""
    if role_arn is None:
        if operation != "CreateModel":
            return []
        role_arn = root_arn(account_id)
        advice = (
            "The request names no ExecutionRoleArn, so the model would act for the whole account: name a role that "
            "you may pass."
        )
    return [Need("iam:PassRole", role_arn, {"iam:PassedToService": SERVICE}, advice=advice)]


def _may_have_say(operation: str, resource_arn: str, account_id: str) -> bool:
    """A policy has none in what is done to itself, so that nobody can lock the account out of its endpoint."""
    return operation not in _ON_POLICIES and account_of(resource_arn) == account_id


def _request_context(params: Params) -> dict[str, str | tuple[str, ...]]:
    tags = {tag["Key"]: tag["Value"] for tag in params.get("Tags", ())}
    keys = tuple(tags) or tuple(params.get("TagKeys", ()))
    context: dict[str, str | tuple[str, ...]] = {
        f"aws:RequestTag/{key}": value for key, value in tags.items()
    }
    if keys:
        context["aws:TagKeys"] = keys
    return context | _configuration_context(params)


def _configuration_context(params: Params) -> dict[str, str | tuple[str, ...]]:
    """What CreateModel and CreateEndpointConfig say of instances and networks; keys of which they say nothing are
    absent. With several serverless variants the largest number counts."""
    variants = [*params.get("ProductionVariants", ()), *params.get("ShadowProductionVariants", ())]
    pools = [pool for variant in variants for pool in variant.get("InstancePools", ())]
    serverless = [variant["ServerlessConfig"] for variant in variants if "ServerlessConfig" in variant]
    network = params.get("VpcConfig", {})
    context: dict[str, str | tuple[str, ...]] = {}
    for key, values in (
        ("sagemaker:InstanceTypes", _members((*variants, *pools), "InstanceType")),
        ("sagemaker:AcceleratorTypes", _members(variants, "AcceleratorType")),
        ("sagemaker:VpcSubnets", tuple(network.get("Subnets", ()))),
        ("sagemaker:VpcSecurityGroupIds", tuple(network.get("SecurityGroupIds", ()))),
    ):
        if values:
            context[key] = values
    for key, member in (
        ("sagemaker:ServerlessMaxConcurrency", "MaxConcurrency"),
        ("sagemaker:ServerlessMemorySize", "MemorySizeInMB"),
    ):
        numbers = [each[member] for each in serverless if member in each]
        if numbers:
            context[key] = str(max(numbers))
    if "KmsKeyId" in params:
        context["sagemaker:VolumeKmsKey"] = params["KmsKeyId"]
    if "EnableNetworkIsolation" in params:
        context["sagemaker:NetworkIsolation"] = "true" if params["EnableNetworkIsolation"] else "false"
    return context


def _members(items: Sequence[Params], name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each[name] for each in items if name in each))
