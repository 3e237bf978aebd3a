"""What one account can do to another's objects by what the platform reads and writes for it: nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.serve.test_endpoint_policies import Tenant
from tests.serve.test_iam import ECHO
from tests.servers import MODELHOST, MoorageServer, eventually, pack

ABSENT = "arn:aws:iam::999988887777:role/absent"


@dataclass
class Two:
    """Account `a` has a bucket `private-a` with `model.tar.gz` and `in/x`; account `b` has an asynchronous endpoint,
    and a bucket of its own."""

    server: MoorageServer
    a: Tenant
    b: Tenant


@pytest.fixture(scope="module")
def two(server: MoorageServer) -> Iterator[Two]:
    a, b = Tenant(server, "objects-a"), Tenant(server, "objects-b")
    for tenant, bucket in ((a, "private-a"), (b, "private-b")):
        s3 = tenant.client("s3")
        s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket=bucket, Key="model.tar.gz", Body=pack(ECHO))
        s3.put_object(Bucket=bucket, Key="in/x", Body=bucket.encode())
    yield Two(server, a, b)
    for name in ("reader", "writer"):
        b.client("sagemaker").delete_endpoint(EndpointName=name)


def deploy(tenant: Tenant, name: str, output: str) -> None:
    sagemaker = tenant.client("sagemaker")
    sagemaker.create_model(
        ModelName=name,
        ExecutionRoleArn=ABSENT,
        PrimaryContainer={"Image": MODELHOST, "ModelDataUrl": "s3://private-b/model.tar.gz"},
    )
    variant = {
        "VariantName": "a",
        "ModelName": name,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[variant],
        AsyncInferenceConfig={
            "OutputConfig": {"S3OutputPath": output, "S3FailurePath": "s3://private-b/failed"}
        },
    )
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    eventually(
        lambda: sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] != "Creating", timeout=60
    )
    described = sagemaker.describe_endpoint(EndpointName=name)
    assert described["EndpointStatus"] == "InService", described.get("FailureReason")


@pytest.mark.parametrize("role", [ABSENT, None])
@pytest.mark.parametrize("key", ["model.tar.gz", "absent.tar.gz", "in/", "none/"])
def test_a_model_of_anothers_is_as_one_that_is_not_there(two: Two, key: str, role: str | None) -> None:
    members: dict[str, Any] = {} if role is None else {"ExecutionRoleArn": role}
    said = []
    for bucket in ("private-a", "no-such-bucket"):
        container = {"Image": MODELHOST, "ModelDataUrl": f"s3://{bucket}/{key}"}
        with pytest.raises(ClientError) as caught:
            two.b.client("sagemaker").create_model(ModelName="stolen", PrimaryContainer=container, **members)
        assert caught.value.response["Error"]["Code"] == "ValidationException"
        said.append(caught.value.response["Error"]["Message"].replace(bucket, "BUCKET"))
    assert said[0] == said[1]
    assert said[0].startswith(f"Could not find model data at s3://BUCKET/{key}.")


def ended(tenant: Tenant, accepted: dict[str, Any]) -> tuple[str, str]:
    """Whether the result or the failure came, and what is in it."""
    s3 = tenant.client("s3")
    found: list[tuple[str, str]] = []

    def came() -> bool:
        for kind in ("OutputLocation", "FailureLocation"):
            bucket, _, key = accepted[kind].removeprefix("s3://").partition("/")
            try:
                found.append((kind, s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()))
            except ClientError:
                continue
        return bool(found)

    eventually(came)
    return found[0]


def test_an_input_of_anothers_is_not_read_and_may_be_there_or_not(two: Two) -> None:
    deploy(two.b, "reader", "s3://private-b/out")
    runtime = two.b.client("sagemaker-runtime")

    def invoke(location: str) -> tuple[str, str]:
        return ended(two.b, runtime.invoke_endpoint_async(EndpointName="reader", InputLocation=location))

    assert invoke("s3://private-b/in/x") == ("OutputLocation", "private-b")
    there, absent = invoke("s3://private-a/in/x"), invoke("s3://private-a/in/y")
    assert there == (
        "FailureLocation",
        'Failed to download the object from URL: "s3://private-a/in/x". Please ensure that there is an object '
        "located at the URL and that the role passed to CreateModel has permissions to download the object.",
    )
    assert (absent[0], absent[1].replace("in/y", "in/x")) == there


def snapshot(tenant: Tenant, bucket: str) -> dict[str, str]:
    s3 = tenant.client("s3")
    return {each["Key"]: each["ETag"] for each in s3.list_objects_v2(Bucket=bucket).get("Contents", ())}


def test_nothing_is_written_to_anothers_bucket(two: Two) -> None:
    """Not even over an object whose name the caller may choose."""
    deploy(two.b, "writer", "s3://private-a/in")
    before = snapshot(two.a, "private-a")
    runtime = two.b.client("sagemaker-runtime")
    runtime.meta.events.register(
        "before-sign.*", lambda request, **_: request.headers.add_header("x-amzn-sagemaker-filename", "x")
    )
    accepted = runtime.invoke_endpoint_async(EndpointName="writer", InputLocation="s3://private-b/in/x")
    kind, text = ended(two.b, accepted)
    assert kind == "FailureLocation"
    assert text.startswith(
        f'Failed to upload the object to URL: "{accepted["OutputLocation"]}". Please ensure'
    )
    assert snapshot(two.a, "private-a") == before


def test_a_bucket_policy_opens_it_to_a_role_that_exists_and_not_to_one_that_does_not(two: Two) -> None:
    role = two.b.client("iam").create_role(
        RoleName="guest",
        AssumeRolePolicyDocument=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": {
                    "Effect": "Allow",
                    "Principal": {"Service": "sagemaker.amazonaws.com"},
                    "Action": "sts:AssumeRole",
                },
            }
        ),
    )["Role"]["Arn"]
    two.b.client("iam").put_role_policy(
        RoleName="guest",
        PolicyName="p",
        PolicyDocument=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"},
            }
        ),
    )
    document = {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Principal": {"AWS": two.b.root},
            "Action": "s3:GetObject",
            "Resource": "arn:aws:s3:::private-a/model.tar.gz",
        },
    }
    two.a.client("s3").put_bucket_policy(Bucket="private-a", Policy=json.dumps(document))
    create: Callable[..., Any] = two.b.client("sagemaker").create_model
    container = {"Image": MODELHOST, "ModelDataUrl": "s3://private-a/model.tar.gz"}
    with pytest.raises(ClientError, match="Could not find model data"):
        create(ModelName="shared", ExecutionRoleArn=ABSENT, PrimaryContainer=container)
    create(ModelName="shared", ExecutionRoleArn=role, PrimaryContainer=container)
    two.a.client("s3").delete_bucket_policy(Bucket="private-a")


def test_deploy_works_in_the_account_of_the_key(two: Two, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "inference.py").write_text(ECHO["code/inference.py"])
    credentials = two.b.client("sts")._request_signer._credentials
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | {
        "AWS_ENDPOINT_URL": two.server.url,
        "AWS_ACCESS_KEY_ID": credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
    }
    done = subprocess.run(
        [sys.executable, "-m", "moorage", "deploy", str(tmp_path), "--name", "by-b"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    sagemaker = two.b.client("sagemaker")
    [model] = [each for each in sagemaker.list_models()["Models"] if each["ModelName"].startswith("by-b")]
    described = sagemaker.describe_model(ModelName=model["ModelName"])
    assert described["ExecutionRoleArn"] == f"arn:aws:iam::{two.b.account_id}:role/moorage"
    assert described["PrimaryContainer"]["ModelDataUrl"].startswith(
        f"s3://moorage-models-{two.b.account_id}/"
    )
    sagemaker.delete_endpoint(EndpointName="by-b")
