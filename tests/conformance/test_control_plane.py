"""The control plane through boto3: the calls that the SageMaker SDKs make, in their order and with their errors."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError, WaiterError

from tests.conformance.targets import REGION, credentials, model, unique
from tests.servers import MODELHOST, ROLE, MoorageServer

PATIENCE = {"Delay": 0.1, "MaxAttempts": 600}
"""For boto3's waiters, which ask every 30 seconds otherwise."""


@pytest.fixture(scope="module")
def arn(account_id: str) -> Callable[[str, str], str]:
    return lambda kind, name: f"arn:aws:sagemaker:{REGION}:{account_id}:{kind}/{name}"


@pytest.fixture(scope="module")
def model_url(target: MoorageServer) -> str:
    return target.upload(unique("control"), model("versioned"))


@pytest.fixture
def made(sagemaker: Any, model_url: str) -> Iterator[str]:
    """A model and an endpoint configuration of one name."""
    name = unique("made")
    _create_model(sagemaker, name, model_url)
    _create_config(sagemaker, name)
    yield name
    sagemaker.delete_endpoint_config(EndpointConfigName=name)
    sagemaker.delete_model(ModelName=name)


def _create_model(sagemaker: Any, name: str, url: str, version: str = "1", **more: Any) -> Any:
    container = {"Image": MODELHOST, "ModelDataUrl": url, "Environment": {"MODEL_VERSION": version}}
    return sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container, **more)


def _create_config(sagemaker: Any, name: str, *, of: str | None = None, **more: Any) -> Any:
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": of or name,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
        "InitialVariantWeight": 1,
    }
    return sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **more)


def _refusal(call: Callable[..., Any], **members: Any) -> str:
    """The message of the ValidationException that the call raises."""
    with pytest.raises(ClientError) as caught:
        call(**members)
    error = caught.value.response
    assert error["Error"]["Code"] == "ValidationException"
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert error["ResponseMetadata"]["RequestId"]
    return str(error["Error"]["Message"])


# --- the life of an endpoint ---------------------------------------------------------------------------


def test_the_life_of_an_endpoint(
    sagemaker: Any, runtime: Any, model_url: str, arn: Callable[[str, str], str]
) -> None:
    """What `Model.deploy`, `Predictor.update_endpoint` and `delete_endpoint` of the SageMaker SDK do."""
    first, second = unique("first"), unique("second")
    tags = [{"Key": "team", "Value": "a"}]

    def invoked() -> bytes:
        body: bytes = runtime.invoke_endpoint(EndpointName=first, Body=b"")["Body"].read()
        return body

    # deploy
    with pytest.raises(ClientError, match="Could not find"):
        sagemaker.describe_endpoint(EndpointName=first)
    made = _create_model(sagemaker, first, model_url, Tags=tags)
    assert made["ModelArn"] == arn("model", first)
    made = _create_config(sagemaker, first, Tags=tags)
    assert made["EndpointConfigArn"] == arn("endpoint-config", first)
    made = sagemaker.create_endpoint(EndpointName=first, EndpointConfigName=first, Tags=[])
    assert made["EndpointArn"] == arn("endpoint", first)
    assert sagemaker.describe_endpoint(EndpointName=first)["EndpointStatus"] in ("Creating", "InService")
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=first, WaiterConfig=PATIENCE)
    assert invoked() == b"1"

    # describe
    endpoint = sagemaker.describe_endpoint(EndpointName=first)
    assert endpoint["EndpointStatus"] == "InService"
    assert endpoint["EndpointName"] == first
    assert endpoint["EndpointArn"] == arn("endpoint", first)
    assert endpoint["EndpointConfigName"] == first
    assert "FailureReason" not in endpoint
    assert _is_recent(endpoint["CreationTime"])
    assert endpoint["LastModifiedTime"] >= endpoint["CreationTime"]
    (variant,) = endpoint["ProductionVariants"]
    assert variant["VariantName"] == "AllTraffic"
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (1, 1)
    assert (variant["CurrentWeight"], variant["DesiredWeight"]) == (1.0, 1.0)
    assert variant["DeployedImages"][0]["SpecifiedImage"] == MODELHOST

    # update
    _create_model(sagemaker, second, model_url, version="2")
    _create_config(sagemaker, second)
    assert sagemaker.list_tags(ResourceArn=endpoint["EndpointArn"])["Tags"] == []
    made = sagemaker.update_endpoint(EndpointName=first, EndpointConfigName=second)
    assert made["EndpointArn"] == arn("endpoint", first)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=first, WaiterConfig=PATIENCE)
    assert invoked() == b"2"
    updated = sagemaker.describe_endpoint(EndpointName=first)
    assert updated["EndpointConfigName"] == second
    assert updated["CreationTime"] == endpoint["CreationTime"]

    # delete, in the order of the SDK: the configuration first
    sagemaker.delete_endpoint_config(EndpointConfigName=first)
    sagemaker.delete_endpoint_config(EndpointConfigName=second)
    deleted = sagemaker.delete_endpoint(EndpointName=first)
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 200
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=first, WaiterConfig=PATIENCE)
    sagemaker.delete_model(ModelName=first)
    sagemaker.delete_model(ModelName=second)
    with pytest.raises(runtime.exceptions.ValidationError, match=f"Endpoint {first} of account"):
        invoked()


def test_an_endpoint_that_cannot_be_made_fails_with_its_reason(sagemaker: Any, target: MoorageServer) -> None:
    name = unique("broken")
    url = target.upload(name, {"code/inference.py": "raise RuntimeError('this model is broken')"})
    _create_model(sagemaker, name, url)
    _create_config(sagemaker, name)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    with pytest.raises(WaiterError, match="Failed"):
        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig=PATIENCE)
    endpoint = sagemaker.describe_endpoint(EndpointName=name)
    assert endpoint["EndpointStatus"] == "Failed"
    assert "this model is broken" in endpoint["FailureReason"]
    assert len(endpoint["FailureReason"]) <= 1024
    refusal = _refusal(sagemaker.update_endpoint, EndpointName=name, EndpointConfigName=name)
    assert "DeleteEndpoint is the only operation" in refusal
    sagemaker.delete_endpoint(EndpointName=name)
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig=PATIENCE)


def test_an_update_that_fails_leaves_the_endpoint_as_it_was(
    sagemaker: Any, runtime: Any, target: MoorageServer, made: str
) -> None:
    broken = unique("broken")
    url = target.upload(broken, {"code/inference.py": "raise RuntimeError('this model is broken')"})
    _create_model(sagemaker, broken, url)
    _create_config(sagemaker, broken)
    sagemaker.create_endpoint(EndpointName=made, EndpointConfigName=made)
    waiter = sagemaker.get_waiter("endpoint_in_service")
    waiter.wait(EndpointName=made, WaiterConfig=PATIENCE)
    sagemaker.update_endpoint(EndpointName=made, EndpointConfigName=broken)
    waiter.wait(EndpointName=made, WaiterConfig=PATIENCE)
    endpoint = sagemaker.describe_endpoint(EndpointName=made)
    assert (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]) == ("InService", made)
    assert "this model is broken" in endpoint["FailureReason"]
    assert runtime.invoke_endpoint(EndpointName=made, Body=b"")["Body"].read() == b"1"
    sagemaker.delete_endpoint(EndpointName=made)


def test_an_endpoint_in_progress_can_be_neither_updated_nor_deleted(
    sagemaker: Any, made: str, arn: Callable[[str, str], str]
) -> None:
    sagemaker.create_endpoint(EndpointName=made, EndpointConfigName=made)
    expected = f'Cannot update in-progress endpoint "{arn("endpoint", made)}".'
    assert _refusal(sagemaker.update_endpoint, EndpointName=made, EndpointConfigName=made) == expected
    assert _refusal(sagemaker.delete_endpoint, EndpointName=made) == expected
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=made, WaiterConfig=PATIENCE)
    sagemaker.delete_endpoint(EndpointName=made)


# --- descriptions --------------------------------------------------------------------------------------


def test_models_and_configurations_are_described_as_they_were_made(
    sagemaker: Any, made: str, model_url: str, arn: Callable[[str, str], str]
) -> None:
    described = sagemaker.describe_model(ModelName=made)
    assert described["ModelArn"] == arn("model", made)
    assert described["ExecutionRoleArn"] == ROLE
    assert described["EnableNetworkIsolation"] is False
    assert described["PrimaryContainer"]["Image"] == MODELHOST
    assert described["PrimaryContainer"]["ModelDataUrl"] == model_url
    assert described["PrimaryContainer"]["Environment"] == {"MODEL_VERSION": "1"}
    assert _is_recent(described["CreationTime"])
    described = sagemaker.describe_endpoint_config(EndpointConfigName=made)
    assert described["EndpointConfigArn"] == arn("endpoint-config", made)
    assert described["ProductionVariants"] == [
        {
            "VariantName": "AllTraffic",
            "ModelName": made,
            "InitialInstanceCount": 1,
            "InstanceType": "ml.m5.large",
            "InitialVariantWeight": 1.0,
        }
    ]


@pytest.mark.parametrize(
    ("operation", "member", "name"),
    [
        ("list_models", "Models", "ModelName"),
        ("list_endpoint_configs", "EndpointConfigs", "EndpointConfigName"),
    ],
)
def test_lists_are_paged_and_filtered(
    sagemaker: Any, model_url: str, operation: str, member: str, name: str
) -> None:
    prefix = unique("many")
    names = [f"{prefix}-{number}" for number in range(5)]
    for each in names:
        _create_model(sagemaker, each, model_url)
        _create_config(sagemaker, each)
    pages = list(
        sagemaker.get_paginator(operation).paginate(
            NameContains=prefix, SortBy="Name", SortOrder="Ascending", PaginationConfig={"PageSize": 2}
        )
    )
    assert [[item[name] for item in page[member]] for page in pages] == [names[:2], names[2:4], names[4:]]
    newest = getattr(sagemaker, operation)(NameContains=prefix, MaxResults=1)
    assert [item[name] for item in newest[member]] == names[-1:]
    future = datetime.now(UTC) + timedelta(hours=1)
    assert getattr(sagemaker, operation)(NameContains=prefix, CreationTimeAfter=future)[member] == []


def test_endpoints_are_listed_by_status(sagemaker: Any, echo: str) -> None:
    def listed(**filters: Any) -> list[str]:
        found = sagemaker.list_endpoints(NameContains=echo, **filters)["Endpoints"]
        return [item["EndpointName"] for item in found]

    assert listed() == listed(StatusEquals="InService") == [echo]
    assert listed(StatusEquals="Failed") == []


def test_tags(sagemaker: Any, model_url: str) -> None:
    name = unique("tagged")
    arn = _create_model(sagemaker, name, model_url, Tags=[{"Key": "a", "Value": "1"}])["ModelArn"]

    def tags() -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in sagemaker.list_tags(ResourceArn=arn)["Tags"]}

    assert tags() == {"a": "1"}
    added = sagemaker.add_tags(
        ResourceArn=arn, Tags=[{"Key": "a", "Value": "2"}, {"Key": "b ü", "Value": ""}]
    )
    assert {tag["Key"]: tag["Value"] for tag in added["Tags"]} == tags() == {"a": "2", "b ü": ""}
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["a", "unknown"])
    assert tags() == {"b ü": ""}
    sagemaker.delete_model(ModelName=name)
    assert "Could not find" in _refusal(sagemaker.list_tags, ResourceArn=arn)


# --- errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "member", "kind", "words"),
    [
        ("describe_endpoint", "EndpointName", "endpoint", "endpoint"),
        ("delete_endpoint", "EndpointName", "endpoint", "endpoint"),
        ("describe_endpoint_config", "EndpointConfigName", "endpoint-config", "endpoint configuration"),
        ("delete_endpoint_config", "EndpointConfigName", "endpoint-config", "endpoint configuration"),
        ("describe_model", "ModelName", "model", "model"),
        ("delete_model", "ModelName", "model", "model"),
    ],
)
def test_what_is_not_there_cannot_be_found(
    sagemaker: Any, arn: Callable[[str, str], str], operation: str, member: str, kind: str, words: str
) -> None:
    name = unique("missing")
    refusal = _refusal(getattr(sagemaker, operation), **{member: name})
    assert refusal == f'Could not find {words} "{arn(kind, name)}".'


def test_what_something_new_is_made_from_must_be_there(
    sagemaker: Any, made: str, arn: Callable[[str, str], str]
) -> None:
    missing = unique("missing")
    no_config = f'Could not find endpoint configuration "{arn("endpoint-config", missing)}".'
    assert _refusal(sagemaker.create_endpoint, EndpointName=made, EndpointConfigName=missing) == no_config
    refusal = _refusal(_create_config, sagemaker=sagemaker, name=unique("new"), of=missing)
    assert refusal == f'Could not find model "{arn("model", missing)}".'
    refusal = _refusal(sagemaker.update_endpoint, EndpointName=missing, EndpointConfigName=made)
    assert refusal == f'Could not find endpoint "{arn("endpoint", missing)}".'


def test_what_is_there_cannot_be_created_again(
    sagemaker: Any, echo: str, made: str, model_url: str, arn: Callable[[str, str], str]
) -> None:
    refusal = _refusal(_create_model, sagemaker=sagemaker, name=made, url=model_url)
    assert refusal == f'Cannot create already existing model "{arn("model", made)}".'
    refusal = _refusal(_create_config, sagemaker=sagemaker, name=made)
    expected = f'Cannot create already existing endpoint configuration "{arn("endpoint-config", made)}".'
    assert refusal == expected
    refusal = _refusal(sagemaker.create_endpoint, EndpointName=echo, EndpointConfigName=made)
    assert refusal == f'Cannot create already existing endpoint "{arn("endpoint", echo)}".'


def test_a_broken_constraint_is_named(sagemaker: Any, made: str) -> None:
    refusal = _refusal(
        sagemaker.create_endpoint_config,
        EndpointConfigName=unique("local"),
        ProductionVariants=[
            {
                "VariantName": "A",
                "ModelName": made,
                "InitialInstanceCount": 1,
                "InstanceType": "ml.none",
            }
        ],
    )
    assert refusal.startswith(
        "1 validation error detected: Value 'ml.none' at 'productionVariants.1.member.instanceType' failed to "
        "satisfy constraint: Member must satisfy enum value set: ["
    )
    refusal = _refusal(sagemaker.describe_model, ModelName="-")
    assert refusal.startswith(
        "1 validation error detected: Value '-' at 'modelName' failed to satisfy constraint: "
    )


def test_model_data_must_be_there(sagemaker: Any, model_url: str) -> None:
    missing = model_url.replace("model.tar.gz", "missing.tar.gz")
    refusal = _refusal(_create_model, sagemaker=sagemaker, name=unique("m"), url=missing)
    assert refusal.startswith(f"Could not find model data at {missing}.")


def test_an_operation_that_this_server_does_not_have_is_named(ours: MoorageServer) -> None:
    sagemaker = ours.client("sagemaker")
    with pytest.raises(ClientError, match="does not have SageMaker's operation ListTrainingJobs") as caught:
        sagemaker.list_training_jobs()
    assert caught.value.response["Error"]["Code"] == "UnknownOperationException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


@pytest.mark.parametrize(
    ("service", "operation", "name"),
    [
        ("logs", "describe_log_groups", "DescribeLogGroups"),
        ("cloudwatch", "list_metrics", "ListMetrics"),
        pytest.param("sns", "list_topics", "ListTopics"),
        pytest.param("iam", "get_account_summary", "GetAccountSummary"),
    ],
)
def test_an_operation_of_a_service_that_this_server_does_not_have_is_named(
    ours: MoorageServer, service: str, operation: str, name: str
) -> None:
    """In the protocol of that service, or boto3 could not read it."""
    with pytest.raises(ClientError, match=rf": .*{name}") as caught:
        getattr(ours.client(service), operation)()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


# --- who is calling ------------------------------------------------------------------------------------


def test_the_caller_is_told_who_it_is(target: MoorageServer) -> None:
    identity = target.client("sts").get_caller_identity()
    assert identity["Arn"].split(":")[4] == identity["Account"]
    assert len(identity["Account"]) == 12
    assert identity["UserId"]


def test_sts_names_an_action_that_it_does_not_have(ours: MoorageServer) -> None:
    with pytest.raises(ClientError, match="GetFederationToken") as caught:
        ours.client("sts").get_federation_token(Name="session")
    assert caught.value.response["Error"]["Code"] == "InvalidAction"


_STRANGERS = {
    "unsigned": {"config": Config(signature_version=UNSIGNED)},
    "unknown key": {"aws_access_key_id": "AKIAUNKNOWN"},
    "wrong secret": {"aws_secret_access_key": "wrong"},
}


@pytest.mark.parametrize(
    ("service", "operation", "stranger", "code"),
    [
        ("sagemaker", "list_models", "unsigned", "MissingAuthenticationTokenException"),
        ("sagemaker", "list_models", "unknown key", "UnrecognizedClientException"),
        ("sagemaker", "list_models", "wrong secret", "InvalidSignatureException"),
        # Services of the Query protocol have other names for the same.
        pytest.param("sts", "get_caller_identity", "unsigned", "MissingAuthenticationToken"),
        pytest.param("sts", "get_caller_identity", "unknown key", "InvalidClientTokenId"),
        pytest.param("sts", "get_caller_identity", "wrong secret", "SignatureDoesNotMatch"),
    ],
)
def test_a_request_that_is_not_signed_right_is_refused(
    target: MoorageServer, service: str, operation: str, stranger: str, code: str
) -> None:
    options = {
        "aws_access_key_id": credentials(target).access_key,
        "aws_secret_access_key": credentials(target).secret_key,
        **_STRANGERS[stranger],
    }
    client = boto3.client(service, endpoint_url=target.url, region_name=REGION, **options)
    with pytest.raises(ClientError) as caught:
        getattr(client, operation)()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert caught.value.response["Error"]["Code"] == code


def _is_recent(time: datetime) -> bool:
    return abs(datetime.now(UTC) - time) < timedelta(minutes=5)
