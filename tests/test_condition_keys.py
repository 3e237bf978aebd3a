"""The registry of condition keys and actions is true: it has the keys that requests really have, and the actions that
are really asked for."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from moorage.auth import policy
from moorage.auth.actions import ACTIONS, S3_BUCKET_ACTIONS, S3_OBJECT_ACTIONS
from moorage.auth.condition_keys import FILLED
from moorage.auth.execution_roles import trusts_platform
from moorage.auth.sessions import issue, open_token
from moorage.controller.iam import OPERATIONS as IAM_OPERATIONS
from moorage.controller.iam import Iam
from moorage.controller.operations import OPERATIONS as SAGEMAKER_OPERATIONS
from moorage.controller.permissions import Permissions, Requester
from moorage.controller.sts import Sts
from moorage.gateway.s3.needs import Signed, conditions, needs
from moorage.gateway.s3.operations import OPERATIONS as S3_OPERATIONS
from moorage.gateway.s3.reading import read
from tests.controller.conftest import ACCOUNT, Controller, serve
from tests.controller.identities import SEALER, identity_store, role, user
from tests.controller.query_client import QueryClient
from tests.gateway.harness import ACCOUNT as GATEWAY_ACCOUNT
from tests.gateway.harness import KEY, start_gateway
from tests.gateway.harness import request as gateway_request
from tests.gateway.s3.sent import sent

TAGS = [{"Key": "team", "Value": "ml"}]
EVERYTHING = json.dumps(
    {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
)
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Principal": {"AWS": ACCOUNT, "Service": "sagemaker.amazonaws.com"},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
        },
    }
)
NOW = datetime(2026, 3, 1, 6, 30, tzinfo=UTC)


class Recorder:
    """The requests that the policy engine has decided."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, frozenset[str]]] = []

    @property
    def actions(self) -> set[str]:
        return {action for action, _ in self.asked}

    @property
    def keys(self) -> set[str]:
        return {
            key if "/" not in key else key.partition("/")[0] + "/*" for _, keys in self.asked for key in keys
        }

    def keys_of(self, action: str) -> set[str]:
        return set().union(*(keys for asked, keys in self.asked if asked == action.lower()))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    question = policy.Question

    def ask(action: str, resource: str, caller: policy.Caller, facts: Mapping[str, Any]) -> policy.Question:
        made.asked.append((action, frozenset(facts)))
        return question(action, resource, caller, facts)

    monkeypatch.setattr(policy, "Question", ask)
    return made


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    yield from serve(Controller(tmp_path), None)


def add_header(name: str, value: str) -> Callable[..., None]:
    def add(request: Any, **_: Any) -> None:
        request.headers[name] = value

    return add


async def ask_as_a_session(folder: Path) -> None:
    """IAM and STS, by a user and by the session of a role."""
    async with identity_store(folder) as store:
        ann = await user(store, "ann", document=EVERYTHING, tags={"team": "ml"})
        made = await role(store, "app", TRUST, tags={"team": "ml"})
        iam, sts = QueryClient("iam", Iam(store), ann), QueryClient("sts", Sts(store, SEALER), ann)
        await iam.call("CreateUser", UserName="bob", Tags=TAGS)
        arn = (await iam.call("CreatePolicy", PolicyName="p", PolicyDocument=EVERYTHING, Tags=TAGS))[
            "Policy"
        ]["Arn"]
        await iam.call("GetPolicy", PolicyArn=arn)
        await iam.call("AttachRolePolicy", RoleName="app", PolicyArn=arn)
        await sts.call("AssumeRole", RoleArn=made.arn, RoleSessionName="session", ExternalId="xx", Tags=TAGS)
        await sts.call(
            "GetAccessKeyInfo", AccessKeyId=(await iam.call("CreateAccessKey"))["AccessKey"]["AccessKeyId"]
        )
        credentials = issue(
            SEALER,
            account_id=made.account_id,
            principal_arn=f"arn:aws:sts::{made.account_id}:assumed-role/app/s",
            user_id=f"{made.identity_id}:s",
            identity_arn=made.arn,
            duration_seconds=900,
            now=NOW,
        )
        session = open_token(SEALER, credentials.session_token, NOW)
        requester = Requester(
            account_id=session.account_id,
            principal_arn=session.principal_arn,
            user_id=session.user_id,
            identity_arn=session.identity_arn,
            is_session=True,
            session_issued=session.issued_text,
        )
        await Permissions(store).check(requester, "iam:GetUser", "*")
        assert trusts_platform(made, source_arn="arn:aws:sagemaker:us-east-1:1:model/m")


def ask_of_sagemaker(controller: Controller) -> None:
    client = controller.client()
    client.meta.events.register("before-send", add_header("Referer", "https://example.com"))
    client.create_model(
        ModelName="m",
        PrimaryContainer={"Image": "moorage/sklearn", "ModelDataUrl": "s3://models/m.tar.gz"},
        ExecutionRoleArn=f"arn:aws:iam::{ACCOUNT}:role/app",
        VpcConfig={"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]},
        EnableNetworkIsolation=True,
        Tags=TAGS,
    )
    client.create_endpoint_config(
        EndpointConfigName="c",
        ProductionVariants=[
            {
                "VariantName": "v",
                "ModelName": "m",
                "InstanceType": "ml.m5.large",
                "InitialInstanceCount": 1,
                "AcceleratorType": "ml.eia2.medium",
            }
        ],
        KmsKeyId="key",
    )
    client.create_endpoint_config(
        EndpointConfigName="serverless",
        ProductionVariants=[
            {
                "VariantName": "v",
                "ModelName": "m",
                "ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 5},
            }
        ],
    )
    client.describe_model(ModelName="m")


async def invoke() -> None:
    """An endpoint whose policy has a condition, so that the request is looked at."""
    arn = f"arn:aws:sagemaker:us-east-1:{GATEWAY_ACCOUNT}:endpoint/echo"
    document = json.loads(EVERYTHING)
    document["Statement"] |= {"Principal": "*", "Condition": {"Null": {"aws:SourceIp": "false"}}}
    async with start_gateway() as gateway:
        await gateway.echo()
        gateway.front.access.replace_resource_policies({arn: json.dumps(document)})
        gateway.front.access.change_resource_tags({"whole": True, "tags": {arn: {"team": "ml"}}})
        headers = {
            "X-Amzn-SageMaker-Target-Model": "m",
            "User-Agent": "test",
            "Referer": "https://example.com",
        }
        await gateway.call(gateway_request(b"x", headers=headers))
        assert gateway.front.access.is_allowed(KEY, "sagemaker:InvokeEndpoint", arn) is False, (
            "it is asked each time"
        )


async def test_the_keys_that_may_be_named_are_those_that_requests_have(
    recorder: Recorder, controller: Controller, tmp_path: Path
) -> None:
    await ask_as_a_session(tmp_path)
    await asyncio.to_thread(ask_of_sagemaker, controller)
    await invoke()
    registered = {key.lower() for keys in FILLED.values() for key in keys}
    of_s3 = {key for key in registered if key.startswith("s3:")}
    assert recorder.keys - of_s3 == registered - of_s3
    assert recorder.actions <= ACTIONS


async def test_each_operation_fills_its_own(
    recorder: Recorder, controller: Controller, tmp_path: Path
) -> None:
    await ask_as_a_session(tmp_path)
    await asyncio.to_thread(ask_of_sagemaker, controller)
    await invoke()
    tags = {"aws:requesttag/team", "aws:tagkeys"}
    for action, keys in {
        "sagemaker:CreateModel": tags | {"sagemaker:vpcsubnets", "sagemaker:networkisolation"},
        "sagemaker:CreateEndpointConfig": {"sagemaker:instancetypes", "sagemaker:serverlessmemorysize"},
        "sagemaker:DescribeModel": {"aws:resourcetag/team", "sagemaker:resourcetag/team", "aws:useragent"},
        "sagemaker:InvokeEndpoint": {"aws:resourcetag/team", "sagemaker:targetmodel", "aws:sourceip"},
        "iam:PassRole": {"iam:passedtoservice"},
        "iam:CreatePolicy": tags,
        "iam:GetPolicy": {"aws:resourcetag/team", "iam:resourcetag/team"},
        "iam:AttachRolePolicy": {"iam:policyarn", "iam:resourcetag/team"},
        "sts:AssumeRole": tags
        | {"sts:externalid", "sts:rolesessionname", "aws:sourcearn", "aws:resourcetag/team"},
        "sts:TagSession": tags,
        "iam:GetUser": {"aws:tokenissuetime", "aws:multifactorauthpresent", "aws:principaltag/team"},
    }.items():
        assert keys <= recorder.keys_of(action), action


def test_the_keys_of_s3_are_those_that_its_requests_have() -> None:
    """But for `s3:ResourceAccount`, which the engine knows."""
    key, source = {"Bucket": "b", "Key": "k"}, {"Bucket": "b", "Key": "other"}
    conditional = {"IfMatch": "e", "IfNoneMatch": "*"}
    requests = [
        read(*sent("create_bucket", Bucket="b", ObjectOwnership="BucketOwnerEnforced")),
        read(*sent("list_objects_v2", Bucket="b", Prefix="p", Delimiter="/", MaxKeys=1)),
        read(*sent("get_object", **key, VersionId="v", **conditional)),
        read(*sent("copy_object", **key, CopySource=source, MetadataDirective="COPY")),
        read(
            *sent(
                "put_object",
                **key,
                ACL="private",
                StorageClass="STANDARD",
                ServerSideEncryption="AES256",
                Tagging="team=ml",
                WebsiteRedirectLocation="/elsewhere",
            )
        ),
    ]
    requests[0] = replace(requests[0], location_constraint="eu-west-1")
    requests[2] = replace(requests[2], existing_tags=(("team", "ml"),))
    signed = Signed("REST-QUERY-STRING", "AWS4-HMAC-SHA256", 1000)
    found = {
        name if "/" not in name else name.partition("/")[0] + "/*"
        for request in requests
        for need in needs(request)
        for name in conditions(request, need, signed)
    }
    assert found | {"s3:ResourceAccount"} == set(FILLED["s3"])


def test_s3_knows_who_owns_what_is_asked_for(recorder: Recorder) -> None:
    allows = policy.compile_policy(EVERYTHING, name="p", kind=policy.PolicyKind.IDENTITY)
    caller = policy.Caller(
        arn=f"arn:aws:iam::{ACCOUNT}:root", account_id=ACCOUNT, kind=policy.CallerKind.ROOT, user_id=ACCOUNT
    )
    request = policy.Request("s3:GetObject", "arn:aws:s3:::b/k", caller)
    policy.evaluate(request, identity=[allows], resource_account_id=ACCOUNT)
    assert {"s3:resourceaccount", "aws:resourceaccount"} <= recorder.keys_of("s3:GetObject")


def test_the_actions_are_those_of_the_operations() -> None:
    def of(service: str) -> set[str]:
        return {action.partition(":")[2] for action in ACTIONS if action.startswith(f"{service}:")}

    invocations = {"invokeendpoint", "invokeendpointasync"}
    assert of("sagemaker") == {name.lower() for name in SAGEMAKER_OPERATIONS} | invocations
    assert of("iam") == {name.lower() for name in IAM_OPERATIONS} | {"passrole"}
    asked = {
        action for each in S3_OPERATIONS.values() for action in (each.action, each.version_action) if action
    }
    assert {f"s3:{name}" for name in of("s3")} == {action.lower() for action in asked}
    assert of("s3") - {"createbucket", "listallmybuckets"} <= {
        action.partition(":")[2] for action in S3_OBJECT_ACTIONS | S3_BUCKET_ACTIONS
    }
