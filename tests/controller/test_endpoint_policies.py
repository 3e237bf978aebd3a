"""The policies of endpoints: the operations on them, and what they allow on the control plane."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError

from moorage.auth.policy import Context, PolicyKind
from moorage.controller.authorization import needs
from moorage.resources import Endpoint, EndpointStatus
from moorage.resources import arn as arn_of
from moorage.storage.memory import MemoryResourceStore
from tests.storage.samples import endpoint

from .conftest import ACCOUNT, REGION, Controller

OTHER_ACCOUNT = "444455556666"
ARN = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/churn"
ALLOW: Mapping[str, Any] = {
    "Effect": "Allow",
    "Principal": {"AWS": OTHER_ACCOUNT},
    "Action": "sagemaker:InvokeEndpoint",
    "Resource": ARN,
}
on_one_store = pytest.mark.parametrize("controller", ["memory"], indirect=True)


def policy(*statements: Mapping[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)}, indent=1)


def sample(account_id: str = ACCOUNT, **changes: Any) -> Endpoint:
    arn = arn_of("endpoint", region=REGION, account_id=account_id, name="Churn")
    return endpoint("Churn", account_id=account_id, arn=arn, **changes)


@pytest.fixture
def there(controller: Controller) -> Controller:
    """With the endpoint `Churn`."""
    controller.run(controller.store.create(sample(status=EndpointStatus.IN_SERVICE), {}))
    return controller


def refusal(call: Any, **params: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**params)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def test_a_policy_comes_back_as_it_was_put(there: Controller, sagemaker: Any) -> None:
    for document in (policy(ALLOW), policy(ALLOW, {**ALLOW, "Effect": "Deny"})):
        reply = sagemaker.put_endpoint_policy(EndpointName="Churn", ResourcePolicy=document)
        assert reply["EndpointArn"] == ARN
        reply = sagemaker.get_endpoint_policy(EndpointName="Churn")
        del reply["ResponseMetadata"]
        assert reply == {"EndpointName": "Churn", "EndpointArn": ARN, "ResourcePolicy": document}
    sagemaker.delete_endpoint_policy(EndpointName="Churn")
    sagemaker.delete_endpoint_policy(EndpointName="Churn")
    assert refusal(sagemaker.get_endpoint_policy, EndpointName="Churn") == (
        "ValidationException",
        f'Endpoint "{ARN}" has no policy.',
    )


def test_an_endpoint_that_is_not_there_has_no_policy(controller: Controller, sagemaker: Any) -> None:
    for operation, params in (
        (sagemaker.put_endpoint_policy, {"ResourcePolicy": policy(ALLOW)}),
        (sagemaker.get_endpoint_policy, {}),
        (sagemaker.delete_endpoint_policy, {}),
    ):
        assert refusal(operation, EndpointName="Churn", **params) == (
            "ResourceNotFound",
            f'Could not find endpoint "{ARN}".',
        )


@pytest.mark.parametrize("status", [EndpointStatus.DELETING, EndpointStatus.FAILED])
def test_an_endpoint_that_is_going_or_failed_gets_no_policy(
    there: Controller, sagemaker: Any, status: EndpointStatus
) -> None:
    there.run(there.store.transition(sample(), list(EndpointStatus), status=status))
    code, message = refusal(sagemaker.put_endpoint_policy, EndpointName="Churn", ResourcePolicy=policy(ALLOW))
    assert (code, f"because its status is {status}" in message) == ("ValidationException", True)
    sagemaker.delete_endpoint_policy(EndpointName="Churn")


@on_one_store
@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("{", "ResourcePolicy: The policy is not valid JSON"),
        (
            policy({key: value for key, value in ALLOW.items() if key != "Principal"}),
            "ResourcePolicy: Statement 1, Principal: a resource-based policy must name principals.",
        ),
        (policy({**ALLOW, "Principal": {"AWS": "somebody"}}), "'somebody' is not an account"),
        (policy({**ALLOW, "Action": "InvokeEndpoint"}), "ResourcePolicy: Statement 1, Action: "),
        (policy({**ALLOW, "Resource": "churn"}), "ResourcePolicy: Statement 1, Resource: "),
        (policy({**ALLOW, "Effect": "Maybe"}), "ResourcePolicy: Statement 1, Effect: must be Allow or Deny."),
        (
            policy({**ALLOW, "Condition": {"StringEquals": {"sagemaker:TargetModels": "m"}}}),
            "ResourcePolicy: Statement 1: this server never fills the condition key sagemaker:TargetModels,",
        ),
        (
            policy(ALLOW).replace(" ", "\u00a0", 1),
            "ResourcePolicy: may contain ASCII characters only; character 3 is another.",
        ),
        (policy(ALLOW) + " " * 20480, "Member must have length less than or equal to 20480"),
    ],
)
def test_what_is_no_policy_of_an_endpoint_is_refused(
    there: Controller, sagemaker: Any, document: str, problem: str
) -> None:
    code, message = refusal(sagemaker.put_endpoint_policy, EndpointName="Churn", ResourcePolicy=document)
    assert (code, problem in message) == ("ValidationException", True), message


def test_a_policy_may_have_20480_characters(there: Controller, sagemaker: Any) -> None:
    document = policy(ALLOW).ljust(20480)
    sagemaker.put_endpoint_policy(EndpointName="Churn", ResourcePolicy=document)
    assert sagemaker.get_endpoint_policy(EndpointName="Churn")["ResourcePolicy"] == document


# --- DescribeEndpoint ----------------------------------------------------------------------------------


def shared(controller: Controller, *statements: Mapping[str, Any]) -> str:
    """An endpoint of another account, with a policy if there are statements; returns its ARN."""
    theirs = sample(OTHER_ACCOUNT)
    controller.run(controller.store.create(theirs, {}))
    if statements:
        controller.run(controller.store.put_policy(theirs, policy(*statements), ()))
    return theirs.arn


def to_us(arn: str, effect: str = "Allow") -> dict[str, Any]:
    return {
        "Effect": effect,
        "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
        "Action": "sagemaker:DescribeEndpoint",
        "Resource": arn,
    }


def test_an_endpoint_of_another_account_is_described_if_its_policy_allows(
    controller: Controller, sagemaker: Any
) -> None:
    arn = arn_of("endpoint", region=REGION, account_id=OTHER_ACCOUNT, name="churn")
    assert shared(controller, to_us(arn)) == arn
    described = sagemaker.describe_endpoint(EndpointName=arn)
    assert (described["EndpointArn"], described["EndpointName"]) == (arn, "Churn")
    assert refusal(sagemaker.describe_endpoint, EndpointName="Churn")[0] == "ValidationException"
    code, message = refusal(sagemaker.delete_endpoint, EndpointName=arn)
    assert (code, "at 'endpointName' failed to satisfy" in message) == ("ValidationException", True)


@on_one_store
@pytest.mark.parametrize("effect", [None, "Deny"])
def test_who_may_not_describe_an_endpoint_is_not_told_whether_it_is_there(
    controller: Controller, sagemaker: Any, effect: str | None
) -> None:
    arn = arn_of("endpoint", region=REGION, account_id=OTHER_ACCOUNT, name="churn")
    unknown = refusal(sagemaker.describe_endpoint, EndpointName=arn)
    shared(controller, *([to_us(arn, effect)] if effect else []))
    assert refusal(sagemaker.describe_endpoint, EndpointName=arn) == unknown
    assert unknown == (
        "AccessDeniedException",
        f"User: arn:aws:iam::{ACCOUNT}:root is not authorized to perform: sagemaker:DescribeEndpoint on resource: "
        f"{arn} because no resource-based policy allows the sagemaker:DescribeEndpoint action",
    )


async def test_conditions_see_the_tags_of_the_account_that_is_asked_for() -> None:
    store = MemoryResourceStore()
    await store.create(sample(), {"team": "search"})

    async def context(account_id: str, operation: str, **params: str) -> Context:
        [need] = await needs(operation, params, account_id=account_id, region=REGION, store=store)
        return need.context

    tags = {"aws:ResourceTag/team": "search", "sagemaker:ResourceTag/team": "search"}
    for operation, params in (
        ("DescribeEndpoint", {"EndpointName": "Churn"}),
        ("ListTags", {"ResourceArn": ARN}),
    ):
        assert await context(ACCOUNT, operation, **params) == tags
        assert await context(OTHER_ACCOUNT, operation, **params) == {}


@on_one_store
def test_ones_own_endpoint_may_be_described_by_its_arn(there: Controller, sagemaker: Any) -> None:
    assert sagemaker.describe_endpoint(EndpointName=ARN)["EndpointName"] == "Churn"
    assert refusal(sagemaker.describe_endpoint, EndpointName=ARN + "-2") == (
        "ValidationException",
        f'Could not find endpoint "{ARN}-2".',
    )
    elsewhere = ARN.replace(REGION, "us-west-2")
    assert refusal(sagemaker.describe_endpoint, EndpointName=elsewhere) == (
        "ValidationException",
        f'Could not find endpoint "{elsewhere}".',
    )


@on_one_store
def test_a_policy_may_deny_its_own_account_but_never_the_way_back(there: Controller, sagemaker: Any) -> None:
    everything = {"Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "*"}
    sagemaker.put_endpoint_policy(EndpointName="Churn", ResourcePolicy=policy(everything))
    for operation in (sagemaker.describe_endpoint, sagemaker.delete_endpoint):
        code, message = refusal(operation, EndpointName="Churn")
        assert (code, message.endswith("with an explicit deny in a resource-based policy")) == (
            "AccessDeniedException",
            True,
        )
    for arn in (ARN, ARN.replace("churn", "Churn")):
        assert refusal(sagemaker.list_tags, ResourceArn=arn)[0] == "AccessDeniedException"
    assert sagemaker.get_endpoint_policy(EndpointName="Churn")["ResourcePolicy"] == policy(everything)
    sagemaker.delete_endpoint_policy(EndpointName="Churn")
    assert sagemaker.describe_endpoint(EndpointName="Churn")["EndpointArn"] == ARN


async def test_only_what_is_done_to_an_endpoint_asks_its_policy() -> None:
    store = MemoryResourceStore()
    await store.create(sample(), {})
    await store.put_policy(sample(), policy(ALLOW), ())

    async def policies(operation: str, account_id: str = ACCOUNT, **params: str) -> list[PolicyKind | None]:
        found = await needs(
            operation,
            params,
            account_id=account_id,
            region=REGION,
            store=store,
        )
        return [need.policy.kind if need.policy else None for need in found]

    assert await policies("DescribeEndpoint", EndpointName="Churn") == [PolicyKind.RESOURCE]
    assert await policies("UpdateEndpoint", EndpointName="Churn", EndpointConfigName="churn") == [
        PolicyKind.RESOURCE,
        None,
    ]
    assert await policies("ListTags", ResourceArn=ARN) == [PolicyKind.RESOURCE]
    assert await policies("ListTags", OTHER_ACCOUNT, ResourceArn=ARN) == [None]
    for operation in ("PutEndpointPolicy", "GetEndpointPolicy", "DeleteEndpointPolicy"):
        assert await policies(operation, EndpointName="Churn") == [None]
