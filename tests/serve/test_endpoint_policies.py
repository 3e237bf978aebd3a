"""Endpoints that another account may use, from boto3 to every gateway: who is let in, and what nobody is told."""

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from moorage.cli.client import PrivateRoutes
from moorage.config import load
from tests.serve.test_iam import ECHO, ENDPOINT, allow, can, invoke, policy, refusal, with_key
from tests.servers import ACCOUNT, MoorageServer, eventually

NAME, QUEUED = "Shared-Echo", "shared-queued"
ARN, QUEUED_ARN = f"{ENDPOINT}/shared-echo", f"{ENDPOINT}/{QUEUED}"
INVOKE, INVOKE_ASYNC, DESCRIBE = (
    "sagemaker:InvokeEndpoint",
    "sagemaker:InvokeEndpointAsync",
    "sagemaker:DescribeEndpoint",
)


def private_routes(server: MoorageServer) -> PrivateRoutes:
    return PrivateRoutes(load(file=None, environment={}, overrides={"data_dir": server.data_dir}))


class Tenant:
    """Another account, by the key of its root."""

    def __init__(self, server: MoorageServer, name: str) -> None:
        self._server = server
        made = private_routes(server).ask("POST", "accounts", name=name)
        self.account_id: str = made["Account"]["Id"]
        self.root = f"arn:aws:iam::{self.account_id}:root"
        self._key = made["AccessKey"]
        eventually(lambda: can(lambda: self.client("sts").get_caller_identity()))

    def client(self, service: str, **config: Any) -> Any:
        key = self._key
        return with_key(self._server, service, key["AccessKeyId"], key["SecretAccessKey"], **config)

    def user(self, name: str, document: str) -> "TenantUser":
        return TenantUser(self._server, self, name, document)


class TenantUser:
    """A user of another account, with one key and one policy."""

    def __init__(self, server: MoorageServer, tenant: Tenant, name: str, document: str) -> None:
        self._server = server
        self._iam = tenant.client("iam")
        self.name = name
        self.arn = self._iam.create_user(UserName=name)["User"]["Arn"]
        self._key = self._iam.create_access_key(UserName=name)["AccessKey"]
        self.allow(document)
        eventually(lambda: can(lambda: self.client("sts").get_caller_identity()))

    def allow(self, document: str) -> None:
        self._iam.put_user_policy(UserName=self.name, PolicyName="p", PolicyDocument=document)

    def client(self, service: str) -> Any:
        return with_key(self._server, service, self._key["AccessKeyId"], self._key["SecretAccessKey"])


def to(principal: str, *actions: str, arn: str = ARN, effect: str = "Allow", **more: Any) -> dict[str, Any]:
    return {**allow(*actions, resource=arn, Principal={"AWS": principal}, **more), "Effect": effect}


@pytest.fixture(scope="module")
def shared(server: MoorageServer) -> MoorageServer:
    """With an endpoint of the first account."""
    server.deploy(NAME, ECHO)
    return server


@pytest.fixture(scope="module")
def tenant(shared: MoorageServer) -> Tenant:
    return Tenant(shared, "tenant")


@pytest.fixture(autouse=True)
def nobody_else(shared: MoorageServer) -> None:
    """Each test begins without a policy on the endpoint."""
    shared.client("sagemaker").delete_endpoint_policy(EndpointName=NAME)


def share(server: MoorageServer, *statements: dict[str, Any], name: str = NAME) -> None:
    server.client("sagemaker").put_endpoint_policy(EndpointName=name, ResourcePolicy=policy(*statements))


def stream(runtime: Any, name: str) -> bytes:
    reply = runtime.invoke_endpoint_with_response_stream(EndpointName=name, Body=b"hello")
    return b"".join(event["PayloadPart"]["Bytes"] for event in reply["Body"])


def test_another_account_invokes_by_arn_what_a_policy_lets_it(shared: MoorageServer, tenant: Tenant) -> None:
    runtime = tenant.client("sagemaker-runtime")
    before = refusal(lambda: invoke(runtime, ARN))
    share(shared, to(tenant.root, INVOKE, DESCRIBE))
    eventually(lambda: can(lambda: invoke(runtime, ARN)), timeout=5)
    assert invoke(runtime, ARN) == stream(runtime, ARN) == b"hello"
    assert invoke(runtime, f"{ENDPOINT}/{NAME}") == b"hello", "whatever the case of its name"
    described = tenant.client("sagemaker").describe_endpoint(EndpointName=ARN)
    assert (described["EndpointName"], described["EndpointArn"]) == (NAME, ARN)
    code, message = refusal(lambda: invoke(runtime, NAME))
    assert (code, f"of account {tenant.account_id} not found" in message) == ("ValidationError", True)
    assert refusal(lambda: runtime.invoke_endpoint_async(EndpointName=ARN, Body=b"x"))[0] == before[0]


def test_an_account_names_its_own_endpoint_by_arn_too(shared: MoorageServer) -> None:
    runtime = shared.client("sagemaker-runtime")
    assert invoke(runtime, ARN) == stream(runtime, ARN) == invoke(runtime, NAME) == b"hello"
    code, message = refusal(lambda: invoke(runtime, f"{ARN}-2"))
    assert (code, message) == ("ValidationError", f"Endpoint shared-echo-2 of account {ACCOUNT} not found.")


def test_a_policy_is_given_changed_and_taken_away_within_a_second(
    shared: MoorageServer, tenant: Tenant
) -> None:
    runtime = tenant.client("sagemaker-runtime")

    def within_a_second(condition: Callable[[], object]) -> None:
        started = time.monotonic()
        eventually(condition, timeout=5)
        assert time.monotonic() - started < 1.0

    share(shared, to(tenant.root, INVOKE))
    within_a_second(lambda: can(lambda: invoke(runtime, ARN)))
    share(shared, to(tenant.root, INVOKE), to(tenant.root, INVOKE, effect="Deny"))
    within_a_second(lambda: not can(lambda: invoke(runtime, ARN)))
    share(shared, to(tenant.root, INVOKE))
    within_a_second(lambda: can(lambda: invoke(runtime, ARN)))
    shared.client("sagemaker").delete_endpoint_policy(EndpointName=NAME)
    within_a_second(lambda: not can(lambda: invoke(runtime, ARN)))


def test_who_has_no_permission_is_not_told_whether_an_endpoint_is_there(
    shared: MoorageServer, tenant: Tenant
) -> None:
    runtime, sagemaker = tenant.client("sagemaker-runtime"), tenant.client("sagemaker")
    calls = (
        lambda arn: invoke(runtime, arn),
        lambda arn: stream(runtime, arn),
        lambda arn: runtime.invoke_endpoint_async(EndpointName=arn, InputLocation="s3://b/k"),
        lambda arn: sagemaker.describe_endpoint(EndpointName=arn),
    )

    def refusals(name: str) -> list[tuple[str, str]]:
        found = [refusal(lambda call=call: call(f"{ENDPOINT}/{name}")) for call in calls]
        return [(code, text.replace(f"/{name} ", "/NAME ")) for code, text in found]

    unknown = refusals("no-such-endpoint")
    assert {code for code, _ in unknown} == {"AccessDeniedException"}
    assert unknown[0][1] == (
        f"User: {tenant.root} is not authorized to perform: sagemaker:InvokeEndpoint on resource: "
        f"{ENDPOINT}/NAME because no resource-based policy allows the sagemaker:InvokeEndpoint action"
    )
    assert refusals("shared-echo") == unknown
    witness = tenant.user("witness", policy(allow("sagemaker:*")))
    share(shared, to(tenant.root, "sagemaker:*", effect="Deny"), to(ACCOUNT, DESCRIBE))
    assert refusals("shared-echo") == unknown
    share(
        shared, to(witness.arn, INVOKE), to(tenant.root, "sagemaker:*", effect="Deny", **unless(witness.arn))
    )
    eventually(lambda: can(lambda: invoke(witness.client("sagemaker-runtime"), ARN)), timeout=5)
    assert refusals("shared-echo") == unknown, "the gateways know the policy by now"


def unless(arn: str) -> dict[str, Any]:
    return {"Condition": {"ArnNotEquals": {"aws:PrincipalArn": arn}}}


def test_across_accounts_the_callers_own_policies_must_allow_too(
    shared: MoorageServer, tenant: Tenant
) -> None:
    user = tenant.user("cautious", policy(allow(INVOKE, resource=f"{ENDPOINT}/other")))
    share(shared, to(tenant.account_id, INVOKE))
    runtime = user.client("sagemaker-runtime")
    eventually(lambda: can(lambda: invoke(tenant.client("sagemaker-runtime"), ARN)), timeout=5)
    code, message = refusal(lambda: invoke(runtime, ARN))
    assert (code, "no identity-based policy" in message) == ("AccessDeniedException", True)
    user.allow(policy(allow(INVOKE, resource=ARN)))
    eventually(lambda: can(lambda: invoke(runtime, ARN)), timeout=5)
    share(shared, to(f"{user.arn}-2", INVOKE))
    eventually(lambda: not can(lambda: invoke(runtime, ARN)), timeout=5)


def test_conditions_see_texts_beyond_ascii(shared: MoorageServer, tenant: Tenant) -> None:
    """boto3 sends them as UTF-8."""
    runtime = tenant.client("sagemaker-runtime", user_agent="Müller/日本")
    other = tenant.client("sagemaker-runtime", user_agent="MÃ¼ller/日本")
    agent = {"StringLike": {"aws:UserAgent": "Müller/日本*", "aws:PrincipalAccount": tenant.account_id}}
    share(shared, to("*", INVOKE, Condition=agent))
    eventually(lambda: can(lambda: invoke(runtime, ARN)), timeout=5)
    assert not can(lambda: invoke(other, ARN))


def test_conditions_of_a_policy_see_the_request(shared: MoorageServer, tenant: Tenant) -> None:
    runtime = tenant.client("sagemaker-runtime")
    account = {"StringEquals": {"aws:PrincipalAccount": tenant.account_id}}
    near, far = (
        {"IpAddress": {"aws:SourceIp": f"{address}/8"}, **account} for address in ("127.0.0.0", "10.0.0.0")
    )
    router = f"arn:aws:sagemaker:us-east-1:{tenant.account_id}:inference-router/r"
    through_router = {"ArnEquals": {"sagemaker:SourceInferenceRouterArn": router}, **account}
    share(shared, to("*", INVOKE, Condition=near))
    eventually(lambda: can(lambda: invoke(runtime, ARN)), timeout=5)
    for condition in (far, through_router):
        share(shared, to("*", INVOKE, Condition=condition))
        eventually(lambda: not can(lambda: invoke(runtime, ARN)), timeout=5)
        share(shared, to("*", INVOKE, Condition=near))
        eventually(lambda: can(lambda: invoke(runtime, ARN)), timeout=5)


def test_a_policy_counts_within_its_own_account(shared: MoorageServer) -> None:
    iam = shared.client("iam")
    arn = iam.create_user(UserName="colleague")["User"]["Arn"]
    key = iam.create_access_key(UserName="colleague")["AccessKey"]
    runtime = with_key(shared, "sagemaker-runtime", key["AccessKeyId"], key["SecretAccessKey"])
    root = shared.client("sagemaker-runtime")
    share(shared, to(arn, INVOKE))
    eventually(lambda: can(lambda: invoke(runtime, NAME)), timeout=5)
    share(shared, to("*", INVOKE, effect="Deny"))
    eventually(lambda: not can(lambda: invoke(root, NAME)), timeout=5)
    code, message = refusal(lambda: invoke(runtime, NAME))
    assert (code, message.endswith("with an explicit deny in a resource-based policy")) == (
        "AccessDeniedException",
        True,
    )


def test_an_asynchronous_invocation_belongs_to_the_endpoints_account(
    shared: MoorageServer, tenant: Tenant
) -> None:
    s3 = shared.client("s3")
    s3.create_bucket(Bucket="shared-results")
    output = {"OutputConfig": {"S3OutputPath": "s3://shared-results/out"}}
    shared.deploy(QUEUED, ECHO, config={"AsyncInferenceConfig": output})
    share(shared, to(tenant.root, INVOKE_ASYNC, arn=QUEUED_ARN), name=QUEUED)
    runtime = tenant.client("sagemaker-runtime")
    replies: list[dict[str, Any]] = []

    def accepted() -> bool:
        try:
            replies.append(
                runtime.invoke_endpoint_async(
                    EndpointName=QUEUED_ARN, Body=b"later", ContentType="text/plain", InferenceId="from-afar"
                )
            )
        except ClientError as error:
            assert error.response["Error"]["Code"] == "AccessDeniedException"
            return False
        return True

    eventually(accepted, timeout=5)
    location = urlsplit(replies[0]["OutputLocation"])
    assert location.netloc == "shared-results"
    eventually(lambda: can(lambda: s3.head_object(Bucket=location.netloc, Key=location.path[1:])))
    assert s3.get_object(Bucket=location.netloc, Key=location.path[1:])["Body"].read() == b"later"
    [record] = private_routes(shared).ask("GET", "async/invocation", id="from-afar")["Invocations"]
    assert record["EndpointName"] == QUEUED, "in the queue of the account that has the endpoint"


def test_a_policy_outlives_a_restart_and_not_its_endpoint(new_server: Callable[..., MoorageServer]) -> None:
    server = new_server()
    server.deploy(NAME, ECHO)
    tenant = Tenant(server, "tenant")
    runtime = tenant.client("sagemaker-runtime")
    share(server, to(tenant.root, INVOKE))
    eventually(lambda: can(lambda: invoke(runtime, ARN)), timeout=5)
    server.stop()
    server.start()
    server.wait_for(NAME, "InService")
    assert invoke(tenant.client("sagemaker-runtime"), ARN) == b"hello"
    sagemaker = server.client("sagemaker")
    sagemaker.delete_endpoint(EndpointName=NAME)
    sagemaker.get_waiter("endpoint_deleted").wait(
        EndpointName=NAME, WaiterConfig={"Delay": 0.1, "MaxAttempts": 600}
    )
    sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName=NAME)
    server.wait_for(NAME, "InService")
    assert refusal(lambda: invoke(tenant.client("sagemaker-runtime"), ARN))[0] == "AccessDeniedException"
    assert refusal(lambda: sagemaker.get_endpoint_policy(EndpointName=NAME))[0] == "ValidationException"
