"""What a model's execution role may do, over the whole server: who may pass it, and what is read and written."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.serve.test_endpoint_policies import private_routes
from tests.serve.test_iam import ECHO, User, allow, policy
from tests.servers import ACCOUNT, MODELHOST, MoorageServer, eventually

NewServer = Callable[..., MoorageServer]
ABSENT = f"arn:aws:iam::{ACCOUNT}:role/absent"
ELSEWHERE = "arn:aws:iam::999988887777:role/service-role/AmazonSageMaker-ExecutionRole"
TRUST = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}


def refusal(call: Callable[..., Any], **members: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**members)
    return f"{caught.value.response['Error']['Code']}: {caught.value.response['Error']['Message']}"


def create_role(server: MoorageServer, name: str, *statements: dict[str, Any], trust: Any = None) -> str:
    iam = server.client("iam")
    document = policy(trust or TRUST)
    arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]
    if statements:
        iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=policy(*statements))
    return arn


def test_who_makes_a_model_must_be_allowed_to_pass_its_role(server: MoorageServer) -> None:
    url = server.upload("passed", ECHO)
    container = {"Image": MODELHOST, "ModelDataUrl": url}
    user = User(server, "creator", policy(allow("sagemaker:*")))
    create = user.client("sagemaker").create_model
    eventually(lambda: "iam:PassRole" in refusal(create, ModelName="p", ExecutionRoleArn=ABSENT))
    for arn in (ABSENT, ELSEWHERE):
        assert refusal(create, ModelName="p", ExecutionRoleArn=arn, PrimaryContainer=container) == (
            f"AccessDeniedException: User: {user.arn} is not authorized to perform: iam:PassRole on resource: {arn} "
            "because no identity-based policy allows the iam:PassRole action"
        )
    assert refusal(create, ModelName="p", PrimaryContainer=container) == (
        f"AccessDeniedException: User: {user.arn} is not authorized to perform: iam:PassRole on resource: "
        f"arn:aws:iam::{ACCOUNT}:root because no identity-based policy allows the iam:PassRole action. The request "
        "names no ExecutionRoleArn, so the model would act for the whole account: name a role that you may pass."
    )
    config = user.client("sagemaker").create_endpoint_config
    variant = {"VariantName": "a", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    assert "iam:PassRole on resource: " in refusal(
        config, EndpointConfigName="p", ProductionVariants=[variant], ExecutionRoleArn=ABSENT
    )
    user.allow(policy(allow("sagemaker:*"), allow("iam:PassRole", resource=ABSENT)))
    create(ModelName="p", ExecutionRoleArn=ABSENT, PrimaryContainer=container)
    root = server.client("sagemaker").create_model
    root(ModelName="by-root", ExecutionRoleArn=ELSEWHERE, PrimaryContainer=container)
    root(ModelName="of-the-account", PrimaryContainer=container)


def test_a_model_is_read_as_its_role(server: MoorageServer) -> None:
    url = server.upload("bounded", ECHO)
    container = {"Image": MODELHOST, "ModelDataUrl": url}
    sagemaker = server.client("sagemaker")
    missing = (
        f"ValidationException: Could not find model data at {url}. Please ensure that there is an object located at "
        "the URL and that the role passed to CreateModel has permissions to download the object."
    )
    arn = create_role(server, "bounded")
    assert (
        refusal(sagemaker.create_model, ModelName="b", ExecutionRoleArn=arn, PrimaryContainer=container)
        == missing
    )
    absent = {"Image": MODELHOST, "ModelDataUrl": url.replace("bounded", "nothing")}
    assert refusal(
        sagemaker.create_model, ModelName="b", ExecutionRoleArn=arn, PrimaryContainer=absent
    ) == missing.replace("bounded", "nothing")
    iam = server.client("iam")
    document = policy(allow("s3:GetObject", resource=f"arn:aws:s3:::{url.removeprefix('s3://')}"))
    iam.put_role_policy(RoleName="bounded", PolicyName="p", PolicyDocument=document)
    sagemaker.create_model(ModelName="b", ExecutionRoleArn=arn, PrimaryContainer=container)
    variant = {
        "VariantName": "a",
        "ModelName": "b",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    sagemaker.create_endpoint_config(EndpointConfigName="b", ProductionVariants=[variant])
    iam.delete_role_policy(RoleName="bounded", PolicyName="p")
    sagemaker.create_endpoint(EndpointName="b", EndpointConfigName="b")
    assert server.wait_for("b", "Failed", "InService")["FailureReason"] == (
        f'Failed to download model data for container "primary" from URL: "{url}". Please ensure that there is an '
        "object located at the URL and that the role passed to CreateModel has permissions to download the object."
    )
    sagemaker.delete_endpoint(EndpointName="b")


@pytest.mark.parametrize("url", ["s3://no-such-bucket/p/", "s3://no-such-bucket/model.tar.gz"])
def test_a_bucket_that_is_not_there_is_said_so(server: MoorageServer, url: str) -> None:
    said = refusal(
        server.client("sagemaker").create_model,
        ModelName="nowhere",
        ExecutionRoleArn=ABSENT,
        PrimaryContainer={"Image": MODELHOST, "ModelDataUrl": url},
    )
    assert said.startswith(f"ValidationException: Could not find model data at {url}.")


def test_a_role_must_trust_the_platform_when_a_model_is_made_and_deployed(server: MoorageServer) -> None:
    other = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    arn = create_role(server, "distrusting", allow("s3:*"), trust=other)
    said = (
        f"Could not assume role {arn}. Please ensure that the role exists and allows principal "
        "'sagemaker.amazonaws.com' to assume the role."
    )
    sagemaker, iam = server.client("sagemaker"), server.client("iam")
    members = {
        "ModelName": "t",
        "ExecutionRoleArn": arn,
        "PrimaryContainer": {"Image": MODELHOST, "ModelDataUrl": server.upload("trusted", ECHO)},
    }
    assert refusal(sagemaker.create_model, **members) == f"ValidationException: {said}"
    iam.update_assume_role_policy(RoleName="distrusting", PolicyDocument=policy(TRUST))
    sagemaker.create_model(**members)
    variant = {
        "VariantName": "a",
        "ModelName": "t",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    sagemaker.create_endpoint_config(EndpointConfigName="t", ProductionVariants=[variant])
    iam.update_assume_role_policy(RoleName="distrusting", PolicyDocument=policy(other))
    sagemaker.create_endpoint(EndpointName="t", EndpointConfigName="t")
    assert server.wait_for("t", "Failed", "InService")["FailureReason"] == said
    sagemaker.delete_endpoint(EndpointName="t")


def test_a_role_of_another_account_of_this_server_cannot_be_passed(server: MoorageServer) -> None:
    account = private_routes(server).ask("POST", "accounts", name="passed-from")["Account"]
    said = refusal(
        server.client("sagemaker").create_model,
        ModelName="x",
        ExecutionRoleArn=f"arn:aws:iam::{account['Id']}:role/any",
        PrimaryContainer={"Image": MODELHOST},
    )
    assert said == "ValidationException: Cross-account pass role is not allowed."


@pytest.fixture(scope="module")
def asynchronous(server: MoorageServer) -> Iterator[str]:
    """An endpoint whose role may read `in/*` and write `out/*` of the bucket `async`."""
    s3 = server.client("s3")
    s3.create_bucket(Bucket="async")
    for key in ("in/x", "secret/x"):
        s3.put_object(Bucket="async", Key=key, Body=b"data")
    url = server.upload("reader", ECHO)
    arn = create_role(
        server,
        "reader",
        allow("s3:GetObject", resource=f"arn:aws:s3:::{url.removeprefix('s3://')}"),
        allow("s3:GetObject", resource="arn:aws:s3:::async/in/*"),
        allow("s3:PutObject", resource="arn:aws:s3:::async/out/*"),
    )
    server.configure(
        "reader",
        ECHO,
        model={"ExecutionRoleArn": arn},
        config={
            "AsyncInferenceConfig": {
                "OutputConfig": {"S3OutputPath": "s3://async/out", "S3FailurePath": "s3://async/out/failed"}
            }
        },
    )
    server.client("sagemaker").create_endpoint(EndpointName="reader", EndpointConfigName="reader")
    endpoint = server.wait_for("reader", "InService", "Failed")
    assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")
    yield "reader"
    server.client("sagemaker").delete_endpoint(EndpointName="reader")


def _content(server: MoorageServer, url: str) -> str | None:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    try:
        return server.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read().decode()
    except server.client("s3").exceptions.NoSuchKey:
        return None


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("in/x", None),
        *(
            (
                key,
                f'Failed to download the object from URL: "s3://async/{key}". Please ensure that there is an object '
                "located at the URL and that the role passed to CreateModel has permissions to download the object.",
            )
            for key in ("secret/x", "secret/absent")
        ),
    ],
)
def test_an_input_is_read_as_the_role_of_the_endpoint(
    server: MoorageServer, asynchronous: str, key: str, said: str | None
) -> None:
    user = User(server, f"caller-{key.replace('/', '-')}", policy(allow("sagemaker:InvokeEndpointAsync")))
    eventually(lambda: _may_invoke(user, asynchronous))
    accepted = user.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName=asynchronous, InputLocation=f"s3://async/{key}"
    )
    place = accepted["OutputLocation" if said is None else "FailureLocation"]
    eventually(lambda: _content(server, place) is not None)
    assert _content(server, place) == (said or "data")


def _may_invoke(user: User, endpoint: str) -> bool:
    try:
        user.client("sagemaker-runtime").invoke_endpoint_async(
            EndpointName=endpoint, InputLocation="s3://async/in/x"
        )
    except ClientError:
        return False
    return True


def test_a_result_is_written_as_the_role_of_the_endpoint(server: MoorageServer, asynchronous: str) -> None:
    """The policy of the role changes while the endpoint is in service."""
    iam = server.client("iam")
    document = iam.get_role_policy(RoleName="reader", PolicyName="p")["PolicyDocument"]
    statements = [each for each in document["Statement"] if "s3:PutObject" not in each["Action"]]
    failures = allow("s3:PutObject", resource="arn:aws:s3:::async/out/failed/*")
    iam.put_role_policy(RoleName="reader", PolicyName="p", PolicyDocument=policy(*statements, failures))
    accepted = server.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName=asynchronous, InputLocation="s3://async/in/x"
    )
    eventually(lambda: _content(server, accepted["FailureLocation"]) is not None)
    assert _content(server, accepted["OutputLocation"]) is None
    assert _content(server, accepted["FailureLocation"]) == (
        f'Failed to upload the object to URL: "{accepted["OutputLocation"]}". Please ensure that the bucket exists '
        "and that the role passed to CreateModel has permissions to upload the object."
    )
    iam.put_role_policy(RoleName="reader", PolicyName="p", PolicyDocument=json.dumps(document))


def test_a_role_that_is_deleted_leaves_its_endpoint_nothing(server: MoorageServer) -> None:
    """A role that never existed stands for its account; one that bounded the endpoint does not do so afterwards."""
    arn = create_role(server, "deleted", allow("s3:*"))
    s3, iam = server.client("s3"), server.client("iam")
    s3.create_bucket(Bucket="deleted-role")
    s3.put_object(Bucket="deleted-role", Key="x", Body=b"data")
    output = {"S3OutputPath": "s3://deleted-role/out", "S3FailurePath": "s3://deleted-role/failed"}
    server.deploy(
        "deleted",
        ECHO,
        model={"ExecutionRoleArn": arn},
        config={"AsyncInferenceConfig": {"OutputConfig": output}},
    )
    described = server.client("sagemaker").describe_model(ModelName="deleted")
    assert described["ExecutionRoleArn"] == arn
    assert not any(name.startswith("_") for name in described)
    iam.delete_role_policy(RoleName="deleted", PolicyName="p")
    iam.delete_role(RoleName="deleted")
    accepted = server.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName="deleted", InputLocation="s3://deleted-role/x"
    )
    id = accepted["OutputLocation"].rpartition("/")[2].removesuffix(".out")
    routes = private_routes(server)
    eventually(lambda: routes.ask("GET", "async/invocation", id=id)["Invocations"][0]["Status"] == "Failed")
    [record] = routes.ask("GET", "async/invocation", id=id)["Invocations"]
    assert record["Reason"].startswith(f"Could not assume role {arn}.")
    assert [each["Key"] for each in s3.list_objects_v2(Bucket="deleted-role")["Contents"]] == ["x"]
    server.client("sagemaker").delete_endpoint(EndpointName="deleted")


def test_strict_roles_have_to_exist(new_server: NewServer) -> None:
    server = new_server(strict_roles=True)
    container = {"Image": MODELHOST, "ModelDataUrl": server.upload("strict", ECHO)}
    create = server.client("sagemaker").create_model
    for arn, said in (
        (
            ABSENT,
            f"Could not assume role {ABSENT}. Please ensure that the role exists and allows principal "
            "'sagemaker.amazonaws.com' to assume the role.",
        ),
        (ELSEWHERE, "Cross-account pass role is not allowed."),
    ):
        assert (
            refusal(create, ModelName="s", ExecutionRoleArn=arn, PrimaryContainer=container)
            == f"ValidationException: {said}"
        )
    create(
        ModelName="s",
        ExecutionRoleArn=create_role(server, "real", allow("s3:GetObject")),
        PrimaryContainer=container,
    )
