"""The SageMaker control plane as boto3 sees it."""

import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, WaiterError

from moorage.resources import Endpoint, EndpointStatus, Model

from .conftest import ACCOUNT, REGION, Controller

IMAGE = "image:1"
PREFIX = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/hosting"

DEPLOYED_IMAGE = {
    "SpecifiedImage": IMAGE,
    "ResolvedImage": "image@sha256:1",
    "ResolutionTime": "2026-03-01T06:30:00Z",
}

Call = Callable[..., Any]

on_one_store = pytest.mark.parametrize("controller", ["memory"], indirect=True)
"""For what is decided before the store is asked."""


def refusal(call: Call, **params: Any) -> str:
    """The message of the ValidationException that the call ends in."""
    with pytest.raises(ClientError) as caught:
        call(**params)
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert caught.value.response["ResponseMetadata"]["RequestId"] == "request-1"
    message: str = caught.value.response["Error"]["Message"]
    return message


def is_recent(time: datetime) -> bool:
    return timedelta(0) <= datetime.now(UTC) - time + timedelta(milliseconds=1) < timedelta(minutes=1)


def create_model(sagemaker: Any, name: str = "Churn", **container: Any) -> str:
    reply = sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": IMAGE, **container})
    arn: str = reply["ModelArn"]
    return arn


def variant(name: str = "AllTraffic", **members: Any) -> dict[str, Any]:
    given = {
        "VariantName": name,
        "ModelName": "Churn",
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
        **members,
    }
    return {key: value for key, value in given.items() if value is not None}


def create_config(
    sagemaker: Any, name: str = "Churn-Config", *variants: dict[str, Any], **members: Any
) -> str:
    reply = sagemaker.create_endpoint_config(
        EndpointConfigName=name, ProductionVariants=list(variants) or [variant()], **members
    )
    arn: str = reply["EndpointConfigArn"]
    return arn


@pytest.fixture
def configured(sagemaker: Any) -> Any:
    """The client, when there are a model and a configuration."""
    create_model(sagemaker)
    create_config(sagemaker)
    return sagemaker


@pytest.fixture
def with_endpoint(configured: Any) -> Any:
    """The client, when there is also an endpoint that is being created."""
    configured.create_endpoint(EndpointName="Churn", EndpointConfigName="Churn-Config")
    return configured


def stored(controller: Controller, name: str = "Churn") -> Endpoint:
    endpoint = controller.run(controller.store.get(Endpoint, ACCOUNT, name))
    assert isinstance(endpoint, Endpoint)
    return endpoint


def set_endpoint(controller: Controller, **changes: Any) -> Endpoint:
    """What the reconciler would do."""
    changed = controller.run(controller.store.transition(stored(controller), list(EndpointStatus), **changes))
    assert isinstance(changed, Endpoint)
    return changed


def finish_deployment(controller: Controller, config: dict[str, Any] | None = None) -> None:
    endpoint = stored(controller)
    set_endpoint(
        controller,
        status=EndpointStatus.IN_SERVICE,
        endpoint_config_name=endpoint.target_config_name,
        deployment_id=endpoint.target_deployment_id,
        target_config_name=None,
        target_deployment_id=None,
        deployed={
            "ProductionVariants": [
                {
                    "VariantName": "AllTraffic",
                    "ModelName": "Churn",
                    "InitialVariantWeight": 1.0,
                    "InitialInstanceCount": 2,
                    "Images": [
                        {
                            "SpecifiedImage": IMAGE,
                            "ResolvedImage": "image@sha256:1",
                            "ResolutionTime": "2026-03-01T06:30:00Z",
                        }
                    ],
                }
            ],
            "EndpointConfig": config or {"ProductionVariants": [variant()]},
            "Models": {},
        },
    )


# --- Models --------------------------------------------------------------------------------------------


def test_a_model_is_described_as_it_was_created(sagemaker: Any) -> None:
    given: dict[str, Any] = {
        "ModelName": "Churn-1",
        "PrimaryContainer": {
            "Image": IMAGE,
            "ModelDataUrl": "s3://models/churn.tar.gz",
            "Environment": {"Z": "1", "A": "ü"},
            "ImageConfig": {"RepositoryAccessMode": "Platform"},
        },
        "ExecutionRoleArn": ROLE,
        "VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]},
        "EnableNetworkIsolation": True,
    }
    assert sagemaker.create_model(**given, Tags=[])["ModelArn"] == f"{PREFIX}model/churn-1"
    described = sagemaker.describe_model(ModelName="Churn-1")
    assert described.pop("ModelArn") == f"{PREFIX}model/churn-1"
    assert is_recent(described.pop("CreationTime"))
    assert described.pop("ResponseMetadata")["RequestId"] == "request-1"
    given["PrimaryContainer"]["Mode"] = "SingleModel"
    assert described == given


def test_a_pipeline_is_described_as_it_was_created(sagemaker: Any) -> None:
    containers = [
        {"Image": IMAGE, "ContainerHostname": "first", "Mode": "SingleModel"},
        {
            "Image": IMAGE,
            "ContainerHostname": "second",
            "Mode": "MultiModel",
            "ModelDataUrl": "s3://models/all/",
        },
    ]
    sagemaker.create_model(
        ModelName="Churn", Containers=containers, InferenceExecutionConfig={"Mode": "Direct"}
    )
    described = sagemaker.describe_model(ModelName="Churn")
    assert described["Containers"] == containers
    assert described["InferenceExecutionConfig"] == {"Mode": "Direct"}
    assert described["EnableNetworkIsolation"] is False
    assert "PrimaryContainer" not in described


def test_a_model_that_exists_cannot_be_created(sagemaker: Any) -> None:
    create_model(sagemaker)
    message = f'Cannot create already existing model "{PREFIX}model/churn".'
    assert refusal(create_model, sagemaker=sagemaker) == message
    assert refusal(create_model, sagemaker=sagemaker, name="CHURN") == message


def test_a_deleted_model_is_gone(sagemaker: Any) -> None:
    create_model(sagemaker)
    sagemaker.delete_model(ModelName="Churn")
    message = f'Could not find model "{PREFIX}model/churn".'
    assert refusal(sagemaker.describe_model, ModelName="Churn") == message
    assert refusal(sagemaker.delete_model, ModelName="Churn") == message
    create_model(sagemaker)


def test_model_data_must_exist(controller: Controller, sagemaker: Any) -> None:
    controller.missing_objects = {"s3://models/none.tar.gz", "s3://models/none/"}
    ending = (
        ". Please ensure that there is an object located at the URL and that the role passed to CreateModel has "
        "permissions to download the object."
    )
    message = f"Could not find model data at s3://models/none.tar.gz{ending}"
    assert refusal(create_model, sagemaker=sagemaker, ModelDataUrl="s3://models/none.tar.gz") == message
    source = {"S3Uri": "s3://models/none/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    message = f"Could not find model data at s3://models/none/{ending}"
    assert refusal(create_model, sagemaker=sagemaker, ModelDataSource={"S3DataSource": source}) == message
    additional = [{"ChannelName": "a", "S3DataSource": source}]
    assert refusal(create_model, sagemaker=sagemaker, AdditionalModelDataSources=additional) == message
    assert refusal(sagemaker.describe_model, ModelName="Churn").startswith("Could not find model")
    create_model(sagemaker, Mode="MultiModel", ModelDataUrl="s3://models/none/")
    assert "s3://models/none/" in controller.asked_objects


SOURCE = {"S3Uri": "s3://models/a/", "S3DataType": "S3Prefix", "CompressionType": "None"}


@on_one_store
@pytest.mark.parametrize(
    ("container", "words"),
    [
        ({}, "exactly one of Image and ModelPackageName"),
        ({"Image": IMAGE, "ModelPackageName": "p"}, "exactly one of Image and ModelPackageName"),
        ({"ModelPackageName": "p"}, 'Could not find model package "p"'),
        (
            {"Image": IMAGE, "ModelDataUrl": "s3://a/b", "ModelDataSource": {"S3DataSource": SOURCE}},
            "ModelDataUrl or ModelDataSource, not both",
        ),
        ({"Image": IMAGE, "ModelDataSource": {}}, "must have S3DataSource"),
        (
            {"Image": IMAGE, "ModelDataSource": {"S3DataSource": {**SOURCE, "S3Uri": "s3://a/b"}}},
            "end with a slash",
        ),
        (
            {"Image": IMAGE, "ModelDataSource": {"S3DataSource": {**SOURCE, "CompressionType": "Gzip"}}},
            "Gzip needs S3DataType S3Object",
        ),
        (
            {
                "Image": IMAGE,
                "AdditionalModelDataSources": [{"ChannelName": "a", "S3DataSource": SOURCE}] * 2,
            },
            "must be unique",
        ),
        ({"Image": IMAGE, "Mode": "MultiModel"}, "must have ModelDataUrl"),
        ({"Image": IMAGE, "MultiModelConfig": {"ModelCacheSetting": "Enabled"}}, "needs Mode MultiModel"),
        (
            {
                "Image": IMAGE,
                "ImageConfig": {
                    "RepositoryAccessMode": "Platform",
                    "RepositoryAuthConfig": {"RepositoryCredentialsProviderArn": "arn"},
                },
            },
            "needs RepositoryAccessMode Vpc",
        ),
        ({"Image": IMAGE, "Environment": {f"A{n}": "x" * 1024 for n in range(32)}}, "must not exceed 32 KB"),
        (
            {
                "Image": IMAGE,
                "ContainerMetricsConfig": {
                    "MetricsEndpoints": [
                        {"MetricsEndpointPath": "/metrics", "MetricPublishFrequencyInSeconds": 7}
                    ]
                },
            },
            "must be one of 10, 30, 60",
        ),
    ],
    ids=range(13),
)
def test_containers_that_contradict_themselves(sagemaker: Any, container: dict[str, Any], words: str) -> None:
    assert words in refusal(sagemaker.create_model, ModelName="a", PrimaryContainer=container)
    assert words in refusal(sagemaker.create_model, ModelName="a", Containers=[container])


@on_one_store
@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, "exactly one of PrimaryContainer and Containers"),
        ({"Containers": []}, "exactly one of PrimaryContainer and Containers"),
        ({"PrimaryContainer": {"Image": IMAGE}, "Containers": [{"Image": IMAGE}]}, "exactly one of"),
        (
            {"Containers": [{"Image": IMAGE, "ContainerHostname": "a"}, {"Image": IMAGE}]},
            "Every container must have ContainerHostname because one container has it",
        ),
        (
            {"Containers": [{"Image": IMAGE}] * 2, "InferenceExecutionConfig": {"Mode": "Direct"}},
            "because InferenceExecutionConfig Mode is Direct",
        ),
        ({"Containers": [{"Image": IMAGE, "ContainerHostname": "a"}] * 2}, "of its own"),
        (
            {"Containers": [{"Image": IMAGE, "Mode": "MultiModel", "ModelDataUrl": "s3://a/b/"}] * 2},
            "More than one container in MultiModel mode is not supported with inference pipeline.",
        ),
    ],
    ids=range(7),
)
def test_containers_that_contradict_each_other(sagemaker: Any, members: dict[str, Any], words: str) -> None:
    assert words in refusal(sagemaker.create_model, ModelName="a", **members)


# --- Endpoint configurations ---------------------------------------------------------------------------


def test_a_configuration_is_described_as_it_was_created_with_defaults(sagemaker: Any) -> None:
    create_model(sagemaker)
    members: dict[str, Any] = {
        "DataCaptureConfig": {
            "InitialSamplingPercentage": 20,
            "DestinationS3Uri": "s3://b/capture",
            "CaptureOptions": [{"CaptureMode": "Input"}],
        },
        "AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://b/out"}},
        "KmsKeyId": "key",
        "ExecutionRoleArn": ROLE,
        "MetricsConfig": {"MetricPublishFrequencyInSeconds": 10},
    }
    arn = create_config(sagemaker, "Config-1", variant(InitialVariantWeight=None), **members)
    assert arn == f"{PREFIX}endpoint-config/config-1"
    described = sagemaker.describe_endpoint_config(EndpointConfigName="Config-1")
    del described["ResponseMetadata"]
    assert is_recent(described.pop("CreationTime"))
    members["DataCaptureConfig"]["EnableCapture"] = True
    assert described == {
        "EndpointConfigName": "Config-1",
        "EndpointConfigArn": arn,
        "ProductionVariants": [variant(InitialVariantWeight=1.0)],
        "EnableNetworkIsolation": False,
        **members,
    }


def test_a_configuration_that_exists_cannot_be_created(configured: Any) -> None:
    message = f'Cannot create already existing endpoint configuration "{PREFIX}endpoint-config/churn-config".'
    assert refusal(create_config, sagemaker=configured) == message


def test_a_deleted_configuration_is_gone(configured: Any) -> None:
    configured.delete_endpoint_config(EndpointConfigName="Churn-Config")
    message = f'Could not find endpoint configuration "{PREFIX}endpoint-config/churn-config".'
    assert refusal(configured.describe_endpoint_config, EndpointConfigName="Churn-Config") == message
    assert refusal(configured.delete_endpoint_config, EndpointConfigName="Churn-Config") == message


def test_the_models_of_variants_must_exist(configured: Any) -> None:
    message = f'Could not find model "{PREFIX}model/other".'
    create = configured.create_endpoint_config
    assert refusal(create, EndpointConfigName="c", ProductionVariants=[variant(ModelName="Other")]) == message
    shadow = [variant("shadow", ModelName="Other")]
    production = [variant()]
    assert (
        refusal(
            create, EndpointConfigName="c", ProductionVariants=production, ShadowProductionVariants=shadow
        )
        == message
    )
    pools = [{"InstanceType": "ml.m5.large", "Priority": 1, "ModelNameOverride": "Other"}]
    pooled = variant(InstanceType=None, InstancePools=pools)
    assert refusal(create, EndpointConfigName="c", ProductionVariants=[pooled]) == message


SERVERLESS = {"MemorySizeInMB": 2048, "MaxConcurrency": 5}


def serverless(**members: Any) -> dict[str, Any]:
    nothing = {"InstanceType": None, "InitialInstanceCount": None}
    return variant(**{**nothing, "ServerlessConfig": SERVERLESS, **members})


POOL = {"InstanceType": "ml.m5.large", "Priority": 1}
CAPTURE = {
    "InitialSamplingPercentage": 1,
    "DestinationS3Uri": "s3://b/c",
    "CaptureOptions": [{"CaptureMode": "Input"}],
}
ASYNC = {"OutputConfig": {"S3OutputPath": "s3://b/out"}}
CROSS_REGION = {"MaxInvocationsPerSecondPerInstance": 1, "MaxCrossRegionPercentPerEndpoint": 1}


@on_one_store
@pytest.mark.parametrize(
    ("variants", "members", "words"),
    [
        ([variant(), variant()], {}, "must be unique"),
        ([variant()], {"ShadowProductionVariants": [variant()]}, "must be unique"),
        ([variant(InstanceType=None)], {}, 'Variant "AllTraffic" must have exactly one of InstanceType'),
        ([variant(InstancePools=[POOL])], {}, "exactly one of InstanceType and InstancePools"),
        ([variant(InstanceType=None, InstancePools=[POOL, POOL])], {}, "a Priority of its own"),
        ([variant(InitialInstanceCount=None)], {}, "must have InitialInstanceCount"),
        (
            [variant(ManagedInstanceScaling={"Status": "ENABLED"})],
            {},
            "ManagedInstanceScaling is only supported for inference component endpoints.",
        ),
        (
            [variant(ModelName=None, ManagedInstanceScaling={"MinInstanceCount": 3, "MaxInstanceCount": 2})],
            {"ExecutionRoleArn": ROLE},
            "MinInstanceCount above its MaxInstanceCount",
        ),
        ([variant(ModelName=None)], {}, "must have ExecutionRoleArn"),
        ([variant("a"), variant("b", ModelName=None)], {}, 'Variant "b" has no ModelName; either all'),
        ([serverless(InstanceType="ml.m5.large")], {}, "ServerlessConfig or InstanceType, not both"),
        ([serverless(InitialInstanceCount=1)], {}, "ServerlessConfig or InitialInstanceCount, not both"),
        ([serverless(ServerlessConfig={**SERVERLESS, "MemorySizeInMB": 1500})], {}, "not one of 1024, 2048"),
        (
            [serverless(ServerlessConfig={**SERVERLESS, "ProvisionedConcurrency": 6})],
            {},
            "ProvisionedConcurrency above its MaxConcurrency",
        ),
        ([serverless(ModelName=None)], {"ExecutionRoleArn": ROLE}, "must have ModelName"),
        ([serverless(), variant("b")], {}, "exactly one production variant"),
        (
            [serverless()],
            {"DataCaptureConfig": CAPTURE},
            "DataCaptureConfig is not supported with ServerlessConfig",
        ),
        ([serverless()], {"AsyncInferenceConfig": ASYNC}, "AsyncInferenceConfig is not supported with"),
        ([serverless()], {"EnableNetworkIsolation": True}, "EnableNetworkIsolation is not supported with"),
        (
            [variant("a"), variant("b")],
            {"ShadowProductionVariants": [variant("c")]},
            "exactly one production and one shadow variant",
        ),
        (
            [variant("a")],
            {"ShadowProductionVariants": [variant("b")], "AsyncInferenceConfig": ASYNC},
            "ShadowProductionVariants is not supported with AsyncInferenceConfig",
        ),
        (
            [variant()],
            {"CrossRegionTrafficConfig": CROSS_REGION, "AsyncInferenceConfig": ASYNC},
            "CrossRegionTrafficConfig is not supported with AsyncInferenceConfig",
        ),
        (
            [variant()],
            {"MetricsConfig": {"MetricPublishFrequencyInSeconds": 45}},
            "must be one of 10, 30, 60",
        ),
        ([variant(RoutingConfig={"RoutingStrategy": "PREFIX_AWARE"})], {}, "needs PrefixAwareRoutingConfig"),
        (
            [
                variant(
                    RoutingConfig={
                        "RoutingStrategy": "RANDOM",
                        "PrefixAwareRoutingConfig": {"PrefixLength": 1024, "ConcurrencyThreshold": 1},
                    }
                )
            ],
            {},
            "needs RoutingStrategy PREFIX_AWARE",
        ),
        (
            [variant()],
            {"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://b/a\0"}}},
            "S3OutputPath must not have control characters",
        ),
        (
            [variant()],
            {"AsyncInferenceConfig": {"OutputConfig": {"S3FailurePath": "s3://\n/x"}}},
            "S3FailurePath must not have control characters",
        ),
    ],
    ids=range(27),
)
def test_configurations_that_contradict_themselves(
    configured: Any, variants: list[Any], members: dict[str, Any], words: str
) -> None:
    create = configured.create_endpoint_config
    assert words in refusal(create, EndpointConfigName="c", ProductionVariants=variants, **members)


@on_one_store
@pytest.mark.parametrize(
    ("variants", "members"),
    [
        ([serverless()], {}),
        ([variant("a"), variant("b", InitialVariantWeight=0.0)], {}),
        ([variant("a")], {"ShadowProductionVariants": [variant("b")]}),
        ([variant(ModelName=None)], {"ExecutionRoleArn": ROLE}),
        ([variant(InstanceType=None, InstancePools=[POOL])], {}),
        (
            [
                variant(
                    RoutingConfig={
                        "RoutingStrategy": "PREFIX_AWARE",
                        "PrefixAwareRoutingConfig": {"PrefixLength": 1024, "ConcurrencyThreshold": 1},
                    }
                )
            ],
            {},
        ),
    ],
    ids=range(6),
)
def test_configurations_that_are_accepted(
    configured: Any, variants: list[Any], members: dict[str, Any]
) -> None:
    create_config(configured, "c", *variants, **members)
    described = configured.describe_endpoint_config(EndpointConfigName="c")
    expected = [{"InitialVariantWeight": 1.0, **item} for item in variants]
    assert described["ProductionVariants"] == expected


# --- Endpoints -----------------------------------------------------------------------------------------


def test_a_new_endpoint_is_creating(controller: Controller, configured: Any) -> None:
    arn = configured.create_endpoint(EndpointName="Churn-EP", EndpointConfigName="Churn-Config")[
        "EndpointArn"
    ]
    assert arn == f"{PREFIX}endpoint/churn-ep"
    assert controller.woken == [(ACCOUNT, "Churn-EP")]
    controller.counts = {"AllTraffic": 1}
    described = configured.describe_endpoint(EndpointName="Churn-EP")
    del described["ResponseMetadata"]
    created = described["CreationTime"]
    assert is_recent(created)
    assert described == {
        "EndpointName": "Churn-EP",
        "EndpointArn": arn,
        "EndpointConfigName": "Churn-Config",
        "EndpointStatus": "Creating",
        "CreationTime": created,
        "LastModifiedTime": created,
        "PendingDeploymentSummary": {
            "EndpointConfigName": "Churn-Config",
            "StartTime": created,
            "ProductionVariants": [
                {
                    "VariantName": "AllTraffic",
                    "DesiredWeight": 1.0,
                    "CurrentInstanceCount": 1,
                    "DesiredInstanceCount": 1,
                    "InstanceType": "ml.m5.large",
                    "VariantStatus": [{"Status": "Creating", "StartTime": created}],
                }
            ],
        },
    }


def test_the_row_that_the_reconciler_finds(controller: Controller, configured: Any) -> None:
    rollback = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "a"}]}}
    configured.create_endpoint(
        EndpointName="Churn", EndpointConfigName="Churn-Config", DeploymentConfig=rollback, Tags=[]
    )
    endpoint = stored(controller)
    assert endpoint.target_config_name == endpoint.endpoint_config_name == "Churn-Config"
    assert re.fullmatch("[0-9a-f]{32}", endpoint.target_deployment_id or "")
    assert (endpoint.deployment_id, endpoint.deployed, endpoint.failure_reason) == (None, None, None)
    assert endpoint.definition == {
        "EndpointName": "Churn",
        "EndpointConfigName": "Churn-Config",
        "DeploymentConfig": rollback,
    }
    described = configured.describe_endpoint(EndpointName="Churn")
    assert described["LastDeploymentConfig"] == rollback


def test_an_endpoint_needs_its_configuration_and_models(controller: Controller, configured: Any) -> None:
    message = f'Could not find endpoint configuration "{PREFIX}endpoint-config/other".'
    assert refusal(configured.create_endpoint, EndpointName="Churn", EndpointConfigName="Other") == message
    configured.delete_model(ModelName="Churn")
    message = f'Could not find model "{PREFIX}model/churn".'
    assert (
        refusal(configured.create_endpoint, EndpointName="Churn", EndpointConfigName="Churn-Config")
        == message
    )
    assert controller.woken == []


def test_a_configuration_for_inference_components_cannot_be_deployed(configured: Any) -> None:
    create_config(configured, "c", variant(ModelName=None), ExecutionRoleArn=ROLE)
    message = refusal(configured.create_endpoint, EndpointName="Churn", EndpointConfigName="c")
    assert "inference components, which this server does not have" in message


def test_an_endpoint_that_exists_cannot_be_created(controller: Controller, with_endpoint: Any) -> None:
    message = f'Cannot create already existing endpoint "{PREFIX}endpoint/churn".'
    for name in ("Churn", "cHURN"):
        assert (
            refusal(with_endpoint.create_endpoint, EndpointName=name, EndpointConfigName="Churn-Config")
            == message
        )
    assert len(controller.woken) == 1


def test_an_endpoint_in_service(controller: Controller, with_endpoint: Any) -> None:
    config = {
        "ProductionVariants": [variant(RoutingConfig={"RoutingStrategy": "RANDOM"})],
        "DataCaptureConfig": {**CAPTURE, "EnableCapture": True},
        "AsyncInferenceConfig": ASYNC,
    }
    finish_deployment(controller, config)
    controller.counts = {"AllTraffic": 1, "Other": 7}
    described = with_endpoint.describe_endpoint(EndpointName="Churn")
    assert described["EndpointStatus"] == "InService"
    assert described["ProductionVariants"] == [
        {
            "VariantName": "AllTraffic",
            "DeployedImages": [
                {
                    "SpecifiedImage": IMAGE,
                    "ResolvedImage": "image@sha256:1",
                    "ResolutionTime": datetime(2026, 3, 1, 6, 30, tzinfo=UTC),
                }
            ],
            "CurrentWeight": 1.0,
            "DesiredWeight": 1.0,
            "CurrentInstanceCount": 1,
            "DesiredInstanceCount": 2,
            "RoutingConfig": {"RoutingStrategy": "RANDOM"},
        }
    ]
    assert described["DataCaptureConfig"] == {
        "EnableCapture": True,
        "CaptureStatus": "Stopped",
        "CurrentSamplingPercentage": 1,
        "DestinationS3Uri": "s3://b/c",
        "KmsKeyId": "",
    }
    assert described["AsyncInferenceConfig"] == ASYNC
    assert "PendingDeploymentSummary" not in described
    assert "FailureReason" not in described


def test_a_serverless_endpoint_shows_its_config_and_no_instances(
    controller: Controller, with_endpoint: Any
) -> None:
    finish_deployment(controller, {"ProductionVariants": [serverless()]})
    (described,) = with_endpoint.describe_endpoint(EndpointName="Churn")["ProductionVariants"]
    assert described["CurrentServerlessConfig"] == described["DesiredServerlessConfig"] == SERVERLESS
    assert "CurrentInstanceCount" not in described


def test_a_failed_endpoint_tells_why_and_can_only_be_deleted(
    controller: Controller, with_endpoint: Any
) -> None:
    set_endpoint(
        controller, status=EndpointStatus.FAILED, failure_reason="why " * 1000, target_config_name=None
    )
    described = with_endpoint.describe_endpoint(EndpointName="Churn")
    assert described["EndpointStatus"] == "Failed"
    assert described["FailureReason"] == ("why " * 1000)[:1024]
    assert "ProductionVariants" not in described
    assert "PendingDeploymentSummary" not in described
    message = refusal(with_endpoint.update_endpoint, EndpointName="Churn", EndpointConfigName="Churn-Config")
    assert f'Cannot update endpoint "{PREFIX}endpoint/churn" because its status is Failed.' in message
    with_endpoint.delete_endpoint(EndpointName="Churn")
    assert with_endpoint.describe_endpoint(EndpointName="Churn")["EndpointStatus"] == "Deleting"


def test_an_update_goes_to_the_new_configuration(controller: Controller, with_endpoint: Any) -> None:
    finish_deployment(controller)
    before = stored(controller)
    create_config(with_endpoint, "New-Config", variant(InitialInstanceCount=3))
    rolling = {"MaximumBatchSize": {"Type": "CAPACITY_PERCENT", "Value": 50}, "WaitIntervalInSeconds": 0}
    deployment = {"RollingUpdatePolicy": rolling}
    with_endpoint.update_endpoint(
        EndpointName="Churn",
        EndpointConfigName="New-Config",
        DeploymentConfig=deployment,
        RetainAllVariantProperties=True,
        ExcludeRetainedVariantProperties=[{"VariantPropertyType": "DesiredWeight"}],
    )
    assert controller.woken[-1] == (ACCOUNT, "Churn")
    after = stored(controller)
    assert after.status is EndpointStatus.UPDATING
    assert (after.target_config_name, after.endpoint_config_name) == ("New-Config", "Churn-Config")
    assert after.deployment_id == before.deployment_id
    assert after.target_deployment_id not in (None, before.deployment_id)
    assert after.definition["RetainAllVariantProperties"] is True
    assert after.definition["DeploymentConfig"] == deployment

    described = with_endpoint.describe_endpoint(EndpointName="Churn")
    assert described["EndpointConfigName"] == "Churn-Config"
    assert described["LastDeploymentConfig"] == deployment
    assert described["ProductionVariants"][0]["DesiredInstanceCount"] == 2
    pending = described["PendingDeploymentSummary"]
    assert pending["EndpointConfigName"] == "New-Config"
    assert pending["StartTime"] == described["LastModifiedTime"]
    assert pending["ProductionVariants"][0]["DesiredInstanceCount"] == 3
    assert "CurrentInstanceCount" not in pending["ProductionVariants"][0]


def test_the_next_update_may_retain_the_deployment_config(controller: Controller, with_endpoint: Any) -> None:
    deployment = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "a"}]}}

    def update(**members: Any) -> dict[str, Any]:
        finish_deployment(controller)
        with_endpoint.update_endpoint(EndpointName="Churn", EndpointConfigName="Churn-Config", **members)
        return dict(stored(controller).definition)

    assert update(DeploymentConfig=deployment)["DeploymentConfig"] == deployment
    retained = update(RetainDeploymentConfig=True)
    assert retained["DeploymentConfig"] == deployment
    assert retained["RetainDeploymentConfig"] is True
    dropped = update()
    assert "DeploymentConfig" not in dropped
    assert "RetainDeploymentConfig" not in dropped


def test_an_update_clears_the_reason_of_an_earlier_failure(
    controller: Controller, with_endpoint: Any
) -> None:
    finish_deployment(controller)
    hostile = "the \x1b[31mlast\x1b[0m update\x9b2J\u202e failed:\n\tsee \x1b]0;title\x07\x85the log\x00"
    set_endpoint(controller, failure_reason=hostile)
    described = with_endpoint.describe_endpoint(EndpointName="Churn")
    assert described["FailureReason"] == "the last update failed:\n\tsee the log"
    set_endpoint(controller, failure_reason="the last update failed")
    assert with_endpoint.describe_endpoint(EndpointName="Churn")["FailureReason"] == "the last update failed"
    with_endpoint.update_endpoint(EndpointName="Churn", EndpointConfigName="Churn-Config")
    assert "FailureReason" not in with_endpoint.describe_endpoint(EndpointName="Churn")


def test_a_pending_configuration_may_be_deleted(controller: Controller, with_endpoint: Any) -> None:
    with_endpoint.delete_endpoint_config(EndpointConfigName="Churn-Config")
    pending = with_endpoint.describe_endpoint(EndpointName="Churn")["PendingDeploymentSummary"]
    assert set(pending) == {"EndpointConfigName", "StartTime"}


@pytest.mark.parametrize("status", EndpointStatus)
def test_which_statuses_can_be_updated_and_deleted(
    controller: Controller, with_endpoint: Any, status: EndpointStatus
) -> None:
    in_progress = f'Cannot update in-progress endpoint "{PREFIX}endpoint/churn".'
    set_endpoint(controller, status=status)
    update = {"EndpointName": "Churn", "EndpointConfigName": "Churn-Config"}
    if status in ("InService", "OutOfService", "UpdateRollbackFailed"):
        with_endpoint.update_endpoint(**update)
        set_endpoint(controller, status=status)
    elif status == "Failed":
        assert "status is Failed" in refusal(with_endpoint.update_endpoint, **update)
    else:
        assert refusal(with_endpoint.update_endpoint, **update) == in_progress
    controller.woken.clear()
    if status in ("InService", "OutOfService", "UpdateRollbackFailed", "Failed", "SystemUpdating"):
        with_endpoint.delete_endpoint(EndpointName="Churn")
        assert stored(controller).status is EndpointStatus.DELETING
        assert controller.woken == [(ACCOUNT, "Churn")]
    else:
        assert refusal(with_endpoint.delete_endpoint, EndpointName="Churn") == in_progress
        assert stored(controller).status is status
        assert controller.woken == []


def test_instances_cannot_become_serverless_but_the_other_way_works(
    controller: Controller, with_endpoint: Any
) -> None:
    create_config(with_endpoint, "serverless", serverless())
    finish_deployment(controller)
    update = {"EndpointName": "Churn", "EndpointConfigName": "serverless"}
    assert "from instances to ServerlessConfig" in refusal(with_endpoint.update_endpoint, **update)
    set_endpoint(
        controller,
        deployed={"ProductionVariants": [], "EndpointConfig": {"ProductionVariants": [serverless()]}},
    )
    with_endpoint.update_endpoint(EndpointName="Churn", EndpointConfigName="Churn-Config")


def test_an_update_needs_its_configuration_and_models(controller: Controller, with_endpoint: Any) -> None:
    finish_deployment(controller)
    update = with_endpoint.update_endpoint
    assert refusal(update, EndpointName="Churn", EndpointConfigName="Other") == (
        f'Could not find endpoint configuration "{PREFIX}endpoint-config/other".'
    )
    with_endpoint.delete_model(ModelName="Churn")
    assert "Could not find model" in refusal(update, EndpointName="Churn", EndpointConfigName="Churn-Config")
    assert stored(controller).status is EndpointStatus.IN_SERVICE


def test_what_is_no_endpoint_cannot_be_found(sagemaker: Any) -> None:
    message = f'Could not find endpoint "{PREFIX}endpoint/none".'
    assert refusal(sagemaker.describe_endpoint, EndpointName="None") == message
    assert refusal(sagemaker.delete_endpoint, EndpointName="None") == message
    assert refusal(sagemaker.update_endpoint, EndpointName="None", EndpointConfigName="c") == message


SIZE_60, SIZE_5 = {"Type": "CAPACITY_PERCENT", "Value": 60}, {"Type": "CAPACITY_PERCENT", "Value": 5}


def blue_green(kind: str, **members: Any) -> dict[str, Any]:
    routing = {"Type": kind, "WaitIntervalInSeconds": 300, **members}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}


ROLLING = {"RollingUpdatePolicy": {"MaximumBatchSize": SIZE_5, "WaitIntervalInSeconds": 0}}


@on_one_store
@pytest.mark.parametrize(
    ("deployment", "words"),
    [
        ({**blue_green("ALL_AT_ONCE"), **ROLLING}, "BlueGreenUpdatePolicy or RollingUpdatePolicy, not both"),
        (blue_green("CANARY"), "of type CANARY must have CanarySize"),
        (blue_green("LINEAR", CanarySize=SIZE_5), "of type LINEAR cannot have CanarySize"),
        (blue_green("LINEAR", LinearStepSize=SIZE_5), "LinearStepSize must be from 10 to 50 percent, not 5"),
        (blue_green("CANARY", CanarySize=SIZE_60), "CanarySize must be from 1 to 50 percent, not 60"),
        (
            {"RollingUpdatePolicy": {"MaximumBatchSize": SIZE_60, "WaitIntervalInSeconds": 0}},
            "MaximumBatchSize must be from 5 to 50 percent, not 60",
        ),
        (
            {
                "BlueGreenUpdatePolicy": {
                    **blue_green("ALL_AT_ONCE")["BlueGreenUpdatePolicy"],
                    "TerminationWaitInSeconds": 300,
                    "MaximumExecutionTimeoutInSeconds": 600,
                }
            },
            "MaximumExecutionTimeoutInSeconds must be larger",
        ),
    ],
    ids=range(7),
)
def test_deployments_that_contradict_themselves(
    controller: Controller, configured: Any, deployment: dict[str, Any], words: str
) -> None:
    names = {"EndpointName": "Churn", "EndpointConfigName": "Churn-Config"}
    assert words in refusal(configured.create_endpoint, **names, DeploymentConfig=deployment)
    configured.create_endpoint(**names)
    finish_deployment(controller)
    assert words in refusal(configured.update_endpoint, **names, DeploymentConfig=deployment)


@on_one_store
@pytest.mark.parametrize(
    "deployment",
    [
        blue_green("ALL_AT_ONCE"),
        blue_green("CANARY", CanarySize={"Type": "INSTANCE_COUNT", "Value": 60}),
        blue_green("LINEAR", LinearStepSize={"Type": "CAPACITY_PERCENT", "Value": 10}),
        {"RollingUpdatePolicy": {**ROLLING["RollingUpdatePolicy"], "RollbackMaximumBatchSize": SIZE_60}},
    ],
    ids=range(4),
)
def test_deployments_that_are_accepted(configured: Any, deployment: dict[str, Any]) -> None:
    configured.create_endpoint(
        EndpointName="Churn", EndpointConfigName="Churn-Config", DeploymentConfig=deployment
    )
    assert configured.describe_endpoint(EndpointName="Churn")["LastDeploymentConfig"] == deployment


def test_waiters_end(controller: Controller, with_endpoint: Any) -> None:
    quick = {"Delay": 0, "MaxAttempts": 1}
    finish_deployment(controller)
    with_endpoint.get_waiter("endpoint_in_service").wait(EndpointName="Churn", WaiterConfig=quick)
    with pytest.raises(WaiterError):
        with_endpoint.get_waiter("endpoint_deleted").wait(EndpointName="Churn", WaiterConfig=quick)
    controller.run(controller.store.delete(stored(controller)))
    with_endpoint.get_waiter("endpoint_deleted").wait(EndpointName="Churn", WaiterConfig=quick)


def test_of_update_and_delete_at_once_one_wins(controller: Controller, with_endpoint: Any) -> None:
    finish_deployment(controller)
    controller.woken.clear()
    barrier = threading.Barrier(8)
    outcomes: list[str] = []

    def act(number: int) -> None:
        client = controller.client()
        barrier.wait()
        try:
            if number % 2:
                client.delete_endpoint(EndpointName="Churn")
            else:
                client.update_endpoint(EndpointName="Churn", EndpointConfigName="Churn-Config")
            outcomes.append("done")
        except ClientError as error:
            outcomes.append(error.response["Error"]["Message"])
        finally:
            client.close()

    threads = [threading.Thread(target=act, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    in_progress = f'Cannot update in-progress endpoint "{PREFIX}endpoint/churn".'
    assert sorted(outcomes) == sorted(["done", *[in_progress] * 7])
    assert controller.woken == [(ACCOUNT, "Churn")]


# --- Lists ---------------------------------------------------------------------------------------------


def test_lists_of_250_come_in_pages(controller: Controller, sagemaker: Any) -> None:
    async def create_all() -> None:
        for n in range(250):
            name = f"m{n:03}"
            model = Model(
                account_id=ACCOUNT,
                name=name,
                arn=f"{PREFIX}model/{name}",
                creation_time=datetime.now(UTC),
                definition={"ModelName": name},
            )
            assert await controller.store.create(model, {})

    controller.run(create_all())
    paginator = sagemaker.get_paginator("list_models")

    def names(**params: Any) -> list[str]:
        return [item["ModelName"] for page in paginator.paginate(**params) for item in page["Models"]]

    everything = [f"m{n:03}" for n in range(250)]
    assert names() == everything[::-1]
    assert names(MaxResults=100, SortOrder="Ascending") == everything
    assert names(SortBy="Name", SortOrder="Ascending", MaxResults=99) == everything
    assert names(SortBy="Name", SortOrder="Descending", NameContains="M24") == everything[240:][::-1]
    first = sagemaker.list_models()
    assert len(first["Models"]) == 10
    assert set(first["Models"][0]) == {"ModelName", "ModelArn", "CreationTime"}


def test_endpoints_are_listed_by_status_and_time(controller: Controller, configured: Any) -> None:
    for name in ("a", "b", "c"):
        configured.create_endpoint(EndpointName=name, EndpointConfigName="Churn-Config")
    endpoint = stored(controller, "b")
    controller.run(
        controller.store.transition(endpoint, [EndpointStatus.CREATING], status=EndpointStatus.IN_SERVICE)
    )

    def names(**params: Any) -> list[str]:
        return [item["EndpointName"] for item in configured.list_endpoints(**params)["Endpoints"]]

    hour = timedelta(hours=1)
    now = datetime.now(UTC)
    assert names() == ["c", "b", "a"]
    assert names(SortBy="Status", SortOrder="Ascending") == ["a", "c", "b"]
    assert names(StatusEquals="InService") == ["b"]
    assert names(CreationTimeAfter=now - hour, CreationTimeBefore=now + hour) == ["c", "b", "a"]
    assert names(CreationTimeBefore=now - hour) == []
    assert names(LastModifiedTimeAfter=now + hour) == []
    assert names(LastModifiedTimeBefore=now + hour, NameContains="B") == ["b"]
    (summary,) = configured.list_endpoints(NameContains="b")["Endpoints"]
    assert set(summary) == {
        "EndpointName",
        "EndpointArn",
        "CreationTime",
        "LastModifiedTime",
        "EndpointStatus",
    }
    configs = configured.list_endpoint_configs()["EndpointConfigs"]
    assert [config["EndpointConfigName"] for config in configs] == ["Churn-Config"]
    assert set(configs[0]) == {"EndpointConfigName", "EndpointConfigArn", "CreationTime"}


@pytest.mark.parametrize("operation", ["list_models", "list_endpoint_configs", "list_endpoints"])
def test_a_token_of_nowhere_is_refused(sagemaker: Any, operation: str) -> None:
    message = refusal(getattr(sagemaker, operation), NextToken="x")
    assert message.startswith("Invalid pagination token because")


# --- Tags ----------------------------------------------------------------------------------------------


def pairs(reply: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in reply["Tags"]}


def tag_list(**tags: str) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def test_tags_live_with_their_resource(sagemaker: Any) -> None:
    tags = tag_list(team="red")
    arns = [
        sagemaker.create_model(ModelName="Churn", PrimaryContainer={"Image": IMAGE}, Tags=tags)["ModelArn"],
        create_config(sagemaker, Tags=tags),
        sagemaker.create_endpoint(EndpointName="Churn", EndpointConfigName="Churn-Config", Tags=tags)[
            "EndpointArn"
        ],
    ]
    for arn in arns:
        assert pairs(sagemaker.list_tags(ResourceArn=arn)) == {"team": "red"}
        added = sagemaker.add_tags(ResourceArn=arn, Tags=tag_list(team="blue", unit="ü"))
        assert pairs(added) == {"team": "blue", "unit": "ü"}
        sagemaker.delete_tags(ResourceArn=arn, TagKeys=["team", "none"])
        assert pairs(sagemaker.list_tags(ResourceArn=arn)) == {"unit": "ü"}
    sagemaker.delete_model(ModelName="Churn")
    message = f'Could not find model "{PREFIX}model/churn".'
    assert refusal(sagemaker.list_tags, ResourceArn=arns[0]) == message
    create_model(sagemaker)
    assert pairs(sagemaker.list_tags(ResourceArn=f"{PREFIX}model/Churn")) == {}


def test_a_resource_has_at_most_50_tags(sagemaker: Any) -> None:
    arn = create_model(sagemaker)
    tags = tag_list(**{f"k{n}": "x" for n in range(50)})
    sagemaker.add_tags(ResourceArn=arn, Tags=tags)
    assert len(sagemaker.list_tags(ResourceArn=arn, MaxResults=50)["Tags"]) == 50
    assert "at most 50" in refusal(sagemaker.add_tags, ResourceArn=arn, Tags=tag_list(more="x"))
    assert len(sagemaker.add_tags(ResourceArn=arn, Tags=tag_list(k1="y"))["Tags"]) == 50


@on_one_store
@pytest.mark.parametrize(
    ("tags", "words"),
    [
        (tag_list(**{"aws:x": "y"}), "aws: prefixed tag key names are not allowed for external use."),
        (tag_list(**{"AWS:x": "y"}), "aws: prefixed tag key names are not allowed for external use."),
        ([*tag_list(a="1"), *tag_list(a="2")], 'The tag key "a" is given more than once.'),
        (tag_list(**{"a#": "1"}), "at 'tags.1.member.key' failed to satisfy constraint"),
    ],
    ids=range(4),
)
def test_tags_that_are_refused(configured: Any, tags: list[dict[str, str]], words: str) -> None:
    container = {"Image": IMAGE}
    assert words in refusal(configured.add_tags, ResourceArn=f"{PREFIX}model/churn", Tags=tags)
    assert words in refusal(configured.create_model, ModelName="a", PrimaryContainer=container, Tags=tags)
    create = configured.create_endpoint_config
    assert words in refusal(create, EndpointConfigName="c", ProductionVariants=[variant()], Tags=tags)
    names = {"EndpointName": "a", "EndpointConfigName": "Churn-Config"}
    assert words in refusal(configured.create_endpoint, **names, Tags=tags)


@pytest.mark.parametrize(
    "arn",
    [
        f"{PREFIX}model/none",
        f"arn:aws:sagemaker:{REGION}:444455556666:model/churn",
        f"arn:aws:sagemaker:us-west-2:{ACCOUNT}:model/churn",
        f"{PREFIX}training-job/x",
        f"{PREFIX}model",
    ],
)
def test_tags_of_what_is_not_here(sagemaker: Any, arn: str) -> None:
    create_model(sagemaker)
    for call, params in (
        (sagemaker.list_tags, {}),
        (sagemaker.add_tags, {"Tags": tag_list(a="b")}),
        (sagemaker.delete_tags, {"TagKeys": ["a"]}),
    ):
        assert refusal(call, ResourceArn=arn, **params).startswith("Could not find ")


def test_there_is_no_second_page_of_tags(sagemaker: Any) -> None:
    arn = create_model(sagemaker)
    assert "NextToken" not in sagemaker.list_tags(ResourceArn=arn)
    assert "Invalid pagination token" in refusal(sagemaker.list_tags, ResourceArn=arn, NextToken="x")


# --- Constraints reach the client ----------------------------------------------------------------------


def test_what_boto3_does_not_check_the_server_does(controller: Controller) -> None:
    client = controller.client(parameter_validation=False)
    message = refusal(client.create_endpoint, EndpointName="a_b")
    assert message.startswith("2 validation errors detected: Value 'a_b' at 'endpointName'")
    client.close()


def test_nothing_is_created_by_a_refused_request(sagemaker: Any) -> None:
    refusal(create_model, sagemaker=sagemaker, Mode="MultiModel")
    assert sagemaker.list_models()["Models"] == []
