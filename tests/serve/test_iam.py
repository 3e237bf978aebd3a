"""Who may call: users, roles, keys and policies, from boto3's `iam` client to every gateway."""

import json
import time
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.servers import ACCOUNT, MoorageServer, eventually

NewServer = Callable[..., MoorageServer]
ENDPOINT = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint"
ECHO = {
    "code/inference.py": "def model_fn(d):\n    return 1\ndef transform_fn(m, b, c, a):\n    return b, 'text/plain'\n"
}


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(*actions: str, resource: str = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": resource, **more}


class User:
    """A user with one access key."""

    def __init__(self, server: MoorageServer, name: str, document: str | None = None) -> None:
        self._server = server
        self._iam = server.client("iam")
        self.name = name
        self.arn = self._iam.create_user(UserName=name)["User"]["Arn"]
        self.key = self._iam.create_access_key(UserName=name)["AccessKey"]
        if document is not None:
            self.allow(document)
        eventually(self.is_known)

    def allow(self, document: str) -> None:
        self._iam.put_user_policy(UserName=self.name, PolicyName="p", PolicyDocument=document)

    def client(self, service: str) -> Any:
        return with_key(self._server, service, self.key["AccessKeyId"], self.key["SecretAccessKey"])

    def is_known(self) -> bool:
        try:
            return bool(self.client("sts").get_caller_identity()["Arn"] == self.arn)
        except ClientError:
            return False


def with_key(
    server: MoorageServer, service: str, key_id: str, secret: str, token: str | None = None, **config: Any
) -> Any:
    return boto3.client(
        service,
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=Config(retries={"total_max_attempts": 1}, **config),
    )


def invoke(runtime: Any, name: str = "iam-echo") -> bytes:
    reply = runtime.invoke_endpoint(EndpointName=name, Body=b"hello", ContentType="text/plain")
    body: bytes = reply["Body"].read()
    return body


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call()
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


@pytest.fixture(scope="module")
def echo(server: MoorageServer) -> MoorageServer:
    server.deploy("iam-echo", ECHO)
    return server


def test_a_user_may_invoke_what_a_policy_allows_and_nothing_else(echo: MoorageServer) -> None:
    user = User(echo, "ann", policy(allow("sagemaker:InvokeEndpoint", resource=f"{ENDPOINT}/iam-*")))
    assert invoke(user.client("sagemaker-runtime")) == b"hello"
    code, message = refusal(lambda: invoke(user.client("sagemaker-runtime"), "other"))
    assert code == "AccessDeniedException"
    assert message == (
        f"User: {user.arn} is not authorized to perform: sagemaker:InvokeEndpoint on resource: {ENDPOINT}/other "
        "because no identity-based policy allows the sagemaker:InvokeEndpoint action"
    )
    runtime = user.client("sagemaker-runtime")
    code, message = refusal(lambda: runtime.invoke_endpoint_async(EndpointName="iam-echo", Body=b"x"))
    assert (code, "sagemaker:InvokeEndpointAsync" in message) == ("AccessDeniedException", True)


def test_conditions_see_the_request(echo: MoorageServer) -> None:
    everything = allow("sagemaker:InvokeEndpoint")
    elsewhere = {
        "Effect": "Deny",
        "Action": "*",
        "Resource": "*",
        "Condition": {"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}},
    }
    user = User(echo, "elsewhere", policy(everything, elsewhere))
    code, message = refusal(lambda: invoke(user.client("sagemaker-runtime")))
    assert (code, "explicit deny" in message) == ("AccessDeniedException", True)
    user.allow(
        policy(everything, {**elsewhere, "Condition": {"NotIpAddress": {"aws:SourceIp": "127.0.0.0/8"}}})
    )
    eventually(lambda: can(lambda: invoke(user.client("sagemaker-runtime"))))


def test_the_control_plane_and_s3_ask_too(echo: MoorageServer) -> None:
    user = User(
        echo,
        "ops",
        policy(
            allow("sagemaker:DescribeEndpoint", resource=f"{ENDPOINT}/iam-echo"),
            allow("s3:ListBucket", resource="arn:aws:s3:::models"),
        ),
    )
    sagemaker, s3 = user.client("sagemaker"), user.client("s3")
    assert sagemaker.describe_endpoint(EndpointName="iam-echo")["EndpointStatus"] == "InService"
    assert refusal(lambda: sagemaker.describe_endpoint(EndpointName="other"))[0] == "AccessDeniedException"
    assert refusal(lambda: sagemaker.delete_endpoint(EndpointName="iam-echo"))[0] == "AccessDeniedException"
    assert refusal(lambda: sagemaker.list_endpoints())[0] == "AccessDeniedException"
    assert s3.list_objects_v2(Bucket="models")["KeyCount"] >= 1
    key = "iam-echo/model.tar.gz"
    assert refusal(lambda: s3.get_object(Bucket="models", Key=key))[0] == "AccessDenied"
    assert refusal(lambda: s3.put_object(Bucket="models", Key=key, Body=b"x"))[0] == "AccessDenied"
    assert refusal(lambda: user.client("iam").list_users())[0] == "AccessDenied"


def test_tags_decide_where_policies_say_so(echo: MoorageServer) -> None:
    condition = {"StringEquals": {"aws:RequestTag/team": "search"}}
    passes = allow("iam:PassRole", resource=f"arn:aws:iam::{ACCOUNT}:root")
    user = User(echo, "tagger", policy(allow("sagemaker:CreateModel", Condition=condition), passes))
    sagemaker = user.client("sagemaker")
    container = {"Image": "i"}

    def create(team: str) -> Any:
        tags = [{"Key": "team", "Value": team}]
        return sagemaker.create_model(ModelName=f"tagged-{team}", PrimaryContainer=container, Tags=tags)

    assert refusal(lambda: create("ads"))[0] == "AccessDeniedException"
    assert create("search")["ModelArn"].endswith(":model/tagged-search")


def test_the_tags_of_an_endpoint_decide_where_policies_say_so(echo: MoorageServer) -> None:
    condition = {"StringEquals": {"aws:ResourceTag/audience": "taggers"}}
    user = User(echo, "tag-reader", policy(allow("sagemaker:InvokeEndpoint", Condition=condition)))
    runtime, sagemaker = user.client("sagemaker-runtime"), echo.client("sagemaker")
    assert refusal(lambda: invoke(runtime))[0] == "AccessDeniedException"
    sagemaker.add_tags(ResourceArn=f"{ENDPOINT}/iam-echo", Tags=[{"Key": "audience", "Value": "taggers"}])
    eventually(lambda: can(lambda: invoke(runtime)))
    sagemaker.delete_tags(ResourceArn=f"{ENDPOINT}/iam-echo", TagKeys=["audience"])
    eventually(lambda: not can(lambda: invoke(runtime)))


def test_a_revoked_key_stops_within_a_second(echo: MoorageServer) -> None:
    user = User(echo, "leaver", policy(allow("sagemaker:InvokeEndpoint")))
    runtime = user.client("sagemaker-runtime")
    assert invoke(runtime) == b"hello"
    echo.client("iam").update_access_key(
        UserName="leaver", AccessKeyId=user.key["AccessKeyId"], Status="Inactive"
    )
    started = time.monotonic()
    eventually(lambda: not can(lambda: invoke(runtime)), timeout=5)
    assert time.monotonic() - started < 1.0
    assert refusal(lambda: invoke(runtime))[0] == "UnrecognizedClientException"


def test_a_role_is_assumed_used_and_taken_away(echo: MoorageServer) -> None:
    iam = echo.client("iam")
    user = User(echo, "borrower", policy(allow("sts:AssumeRole")))
    trust = policy({"Effect": "Allow", "Principal": {"AWS": user.arn}, "Action": "sts:AssumeRole"})
    role = iam.create_role(RoleName="caller", AssumeRolePolicyDocument=trust)["Role"]
    iam.put_role_policy(
        RoleName="caller",
        PolicyName="p",
        PolicyDocument=policy(allow("sagemaker:InvokeEndpoint"), allow("s3:*")),
    )
    assert refusal(lambda: invoke(user.client("sagemaker-runtime")))[0] == "AccessDeniedException"
    narrowed = policy(allow("sagemaker:InvokeEndpoint"))
    credentials = user.client("sts").assume_role(
        RoleArn=role["Arn"], RoleSessionName="shift", Policy=narrowed
    )
    keys = credentials["Credentials"]
    arguments = (keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
    identity = with_key(echo, "sts", *arguments).get_caller_identity()
    assert identity["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/caller/shift"
    runtime = with_key(echo, "sagemaker-runtime", *arguments)
    eventually(lambda: can(lambda: invoke(runtime)))
    assert refusal(lambda: with_key(echo, "s3", *arguments).list_buckets())[0] == "AccessDenied"
    without = with_key(echo, "sagemaker-runtime", *arguments[:2])
    assert refusal(lambda: invoke(without))[0] == "UnrecognizedClientException"

    iam.delete_role_policy(RoleName="caller", PolicyName="p")
    eventually(lambda: not can(lambda: invoke(runtime)), timeout=5)
    assert refusal(lambda: invoke(runtime))[0] == "AccessDeniedException"
    iam.delete_role(RoleName="caller")
    eventually(lambda: refusal(lambda: invoke(runtime))[0] == "UnrecognizedClientException", timeout=5)


def test_what_was_made_outlives_a_restart(new_server: NewServer) -> None:
    server = new_server()
    user = User(server, "stays", policy(allow("s3:ListAllMyBuckets")))
    server.stop()
    server.start()
    assert "Buckets" in user.client("s3").list_buckets()
    data = b"".join(path.read_bytes() for path in server.data_dir.glob("moorage.db*"))
    assert user.key["SecretAccessKey"].encode() not in data, "secrets are sealed at rest"
    assert user.key["SecretAccessKey"] not in server.log


def can(call: Callable[[], object]) -> bool:
    try:
        call()
    except ClientError:
        return False
    return True
