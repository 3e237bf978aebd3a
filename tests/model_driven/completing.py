"""What valid requests need besides what the service model says of them: the rules that its prose states.

A document gets what goes with the member that is tried; the member itself is left alone.
"""

import copy
import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.model_driven.cases import Case
from tests.model_driven.documents import Path

MODEL, CONFIG, ENDPOINT, USER, ROLE = "model", "config", "endpoint", "user", "role"
"""Names of what is there."""

Document = dict[str, Any]
Completion = Callable[[Document, Path], None]
_numbers = itertools.count(1)
_EXECUTION_ROLE = "arn:aws:iam::123456789012:role/one"


def complete(case: Case) -> Document:
    """A document of its own, that the service should accept."""
    made = copy.deepcopy(case.document)
    _COMPLETIONS.get(case.operation.name, _identity())(made, case.path)
    return made  # type: ignore[no-any-return]


def _named(document: Document, path: Path, member: str) -> None:
    """What is created gets a name of its own, unless its name is what is tried."""
    if path != (member,):
        document[member] = f"made-{next(_numbers)}"


# --- Models --------------------------------------------------------------------------------------------


def _model(document: Document, path: Path) -> None:
    _named(document, path, "ModelName")
    if not document.get("Containers"):
        document.setdefault("PrimaryContainer", {})
        document["PrimaryContainer"] = document["PrimaryContainer"] or {}
    if document.get("Containers") and path[:1] != ("PrimaryContainer",):
        document.pop("PrimaryContainer", None)
    elif document.get("PrimaryContainer") is not None:
        document.pop("Containers", None)
    for number, container in enumerate(_containers(document)):
        _container(container, path)
        if document.get("InferenceExecutionConfig", {}):
            container.setdefault("ContainerHostname", f"host-{number}")


def _containers(document: Document) -> list[Document]:
    return document.get("Containers") or [document["PrimaryContainer"]]


def _container(container: Document, path: Path) -> None:
    tried = path[-1] if path else ""
    if tried != "ModelPackageName" or not container["ModelPackageName"]:
        container.pop("ModelPackageName", None)
        if not container.get("Image"):
            container["Image"] = "registry/image:1"
    if tried != "Mode" and "MultiModelConfig" in path:
        container["Mode"] = "MultiModel"
    if container.get("Mode") == "MultiModel":
        container.setdefault("ModelDataUrl", "s3://bucket/models/")
    else:
        container.pop("MultiModelConfig", None)
    if "ModelDataUrl" in container and "ModelDataSource" in container:
        del container["ModelDataUrl" if "ModelDataSource" in path else "ModelDataSource"]
    if (source := container.get("ModelDataSource")) is not None:
        source["S3DataSource"] = source.get("S3DataSource") or {
            "S3Uri": "s3://bucket/model",
            "S3DataType": "S3Object",
            "CompressionType": "None",
        }
        _source(source["S3DataSource"], tried)
    for each in container.get("AdditionalModelDataSources") or ():
        _source(each["S3DataSource"], tried)
    if (config := container.get("ImageConfig")) and "RepositoryAuthConfig" in config:
        config["RepositoryAccessMode"] = "Vpc"


def _source(source: Document, tried: str) -> None:
    if tried != "S3DataType":
        source["S3DataType"] = "S3Object"
    elif source["S3DataType"] == "S3Prefix":
        source["S3Uri"] = "s3://bucket/prefix/"


# --- Endpoint configurations ---------------------------------------------------------------------------


def _config(document: Document, path: Path) -> None:
    _named(document, path, "EndpointConfigName")
    production, shadow = document["ProductionVariants"], document.get("ShadowProductionVariants") or []
    if path == ():
        shadow = []  # much of what there is excludes other things
        for name in ("ShadowProductionVariants", "AsyncInferenceConfig"):
            document.pop(name, None)
    for variant in (*production, *shadow):
        _variant(variant, path)
    if shadow:
        production[0]["VariantName"] = "Production"
    if any("ManagedInstanceScaling" in variant for variant in (*production, *shadow)):
        document.setdefault("ExecutionRoleArn", _EXECUTION_ROLE)
        for variant in (*production, *shadow):
            variant.pop("ModelName", None)


def _variant(variant: Document, path: Path) -> None:
    if path[-1:] in ((), ("[]",)):
        for name in ("ServerlessConfig", "InstancePools", "ManagedInstanceScaling"):
            variant.pop(name, None)
    if "ModelName" not in path or not variant.get("ModelName"):
        variant["ModelName"] = MODEL
    if serverless := variant.get("ServerlessConfig"):
        if serverless.get("ProvisionedConcurrency", 0) and path[-1] != "MaxConcurrency":
            serverless["MaxConcurrency"] = 200
        if path[-1] != "MemorySizeInMB":
            serverless["MemorySizeInMB"] = 2048
        if path[-1] == "MaxConcurrency":
            serverless.pop("ProvisionedConcurrency", None)
        return
    if not variant.get("InstancePools"):
        variant["InstanceType"] = variant.get("InstanceType") or "ml.m5.large"
    for pool in variant.get("InstancePools") or ():
        if path[-1] == "InstancePools":
            pool["ModelNameOverride"] = MODEL
    variant["InitialInstanceCount"] = variant.get("InitialInstanceCount") or 1
    if routing := variant.get("RoutingConfig"):
        if routing["RoutingStrategy"] != "PREFIX_AWARE" and "PrefixAwareRoutingConfig" in routing:
            routing["RoutingStrategy"] = "PREFIX_AWARE"
        if routing["RoutingStrategy"] == "PREFIX_AWARE":
            routing["PrefixAwareRoutingConfig"] = {
                "PrefixLength": 1024,
                "ConcurrencyThreshold": 1,
                **{k: v for k, v in (routing.get("PrefixAwareRoutingConfig") or {}).items() if v},
            }


# --- Endpoints -----------------------------------------------------------------------------------------


def _created_endpoint(document: Document, path: Path) -> None:
    _named(document, path, "EndpointName")
    _endpoint(document, path)


def _updated_endpoint(document: Document, path: Path) -> None:
    if path != ("EndpointName",):
        document["EndpointName"] = ENDPOINT
    _endpoint(document, path)


def _endpoint(document: Document, path: Path) -> None:
    if path != ("EndpointConfigName",):
        document["EndpointConfigName"] = CONFIG
    deployment = document.get("DeploymentConfig") or {}
    if path == ():
        deployment.pop("RollingUpdatePolicy", None)
    if policy := deployment.get("BlueGreenUpdatePolicy"):
        _routing(policy["TrafficRoutingConfiguration"], path)
    for size in _sizes(deployment):
        if path[-1:] != ("Type",):
            size["Type"] = "INSTANCE_COUNT"
        elif size["Type"] == "CAPACITY_PERCENT":
            size["Value"] = 20


def _routing(routing: Document, path: Path) -> None:
    kinds = {"CanarySize": "CANARY", "LinearStepSize": "LINEAR"}
    for name, kind in kinds.items():
        if name in path:
            routing["Type"] = kind
        elif routing.get("Type") != kind:
            routing.pop(name, None)
        else:
            routing[name] = {"Type": "INSTANCE_COUNT", "Value": 1}
        if name in routing and not routing[name]:
            routing["Type"] = "ALL_AT_ONCE"


def _sizes(deployment: Document) -> list[Document]:
    blue_green = (deployment.get("BlueGreenUpdatePolicy") or {}).get("TrafficRoutingConfiguration", {})
    rolling = deployment.get("RollingUpdatePolicy") or {}
    found = (
        blue_green.get("CanarySize"),
        blue_green.get("LinearStepSize"),
        rolling.get("MaximumBatchSize"),
        rolling.get("RollbackMaximumBatchSize"),
    )
    return [size for size in found if size]


def _one(member: str, name: str) -> Completion:
    def completion(document: Document, path: Path) -> None:
        if path != (member,):
            document[member] = name

    return completion


def _endpoint_policy(document: Document, path: Path) -> None:
    if path != ("EndpointName",):
        document["EndpointName"] = ENDPOINT
    if path != ("ResourcePolicy",):
        arn = f"arn:aws:sagemaker:eu-central-1:111122223333:endpoint/{document['EndpointName']}"
        statement = {
            "Effect": "Allow",
            "Principal": "*",
            "Action": "sagemaker:InvokeEndpoint",
            "Resource": arn,
        }
        document["ResourcePolicy"] = json.dumps({"Version": "2012-10-17", "Statement": [statement]})


# --- Identities ----------------------------------------------------------------------------------------

_ALLOW = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
}
_DOCUMENTS = {
    "PolicyDocument": _ALLOW,
    "AssumeRolePolicyDocument": TRUST,
    "Policy": _ALLOW,
    "ResourcePolicy": None,
    "PermissionsBoundary": None,
    "RoleArn": f"arn:aws:iam::111122223333:role/{ROLE}",
    "PolicyArn": "arn:aws:iam::aws:policy/AdministratorAccess",
    "PolicySourceArn": f"arn:aws:iam::111122223333:user/{USER}",
    "UserName": USER,
    "RoleName": ROLE,
}


def _identity(creates: str = "") -> Completion:
    def completion(document: Document, path: Path) -> None:
        for name in set(_DOCUMENTS) & set(document):
            if path[:1] != (name,):
                value = _DOCUMENTS[name]
                document[name] = json.dumps(value) if isinstance(value, dict) else value
        if creates:
            _named(document, path, creates)

    return completion


def _trust(document: Document, path: Path) -> None:
    _identity()(document, path)
    if path != ("PolicyDocument",):
        document["PolicyDocument"] = json.dumps(TRUST)


_COMPLETIONS: Mapping[str, Completion] = {
    "CreateModel": _model,
    "DeleteModel": _one("ModelName", MODEL),
    "DescribeModel": _one("ModelName", MODEL),
    "CreateEndpointConfig": _config,
    "DeleteEndpointConfig": _one("EndpointConfigName", CONFIG),
    "DescribeEndpointConfig": _one("EndpointConfigName", CONFIG),
    "CreateEndpoint": _created_endpoint,
    "UpdateEndpoint": _updated_endpoint,
    "DeleteEndpoint": _one("EndpointName", ENDPOINT),
    "DescribeEndpoint": _one("EndpointName", ENDPOINT),
    **{
        name: _one("ResourceArn", f"arn:aws:sagemaker:eu-central-1:111122223333:model/{MODEL}")
        for name in ("AddTags", "ListTags", "DeleteTags")
    },
    "PutEndpointPolicy": _endpoint_policy,
    "GetEndpointPolicy": _one("EndpointName", ENDPOINT),
    "DeleteEndpointPolicy": _one("EndpointName", ENDPOINT),
    "CreateUser": _identity("UserName"),
    "CreateRole": _identity("RoleName"),
    "CreatePolicy": _identity("PolicyName"),
    "UpdateAssumeRolePolicy": _trust,
}
