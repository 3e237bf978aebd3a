"""What each operation of the control plane needs."""

import pytest

from moorage.controller.authorization import COVERED, needs
from moorage.controller.operations import OPERATIONS
from moorage.storage.memory import MemoryResourceStore

ARN = "arn:aws:sagemaker:us-east-1:000000000000"


def test_every_operation_has_its_needs() -> None:
    assert frozenset(OPERATIONS) == COVERED


@pytest.mark.parametrize(
    ("operation", "params", "resources"),
    [
        ("ListModels", {}, ["*"]),
        ("DescribeModel", {"ModelName": "Big"}, [f"{ARN}:model/big"]),
        (
            "CreateEndpointConfig",
            {"EndpointConfigName": "c", "ProductionVariants": []},
            [f"{ARN}:endpoint-config/c"],
        ),
        (
            "UpdateEndpoint",
            {"EndpointName": "e", "EndpointConfigName": "c"},
            [f"{ARN}:endpoint/e", f"{ARN}:endpoint-config/c"],
        ),
        ("AddTags", {"ResourceArn": f"{ARN}:endpoint/e", "Tags": []}, [f"{ARN}:endpoint/e"]),
    ],
)
async def test_an_operation_needs_its_action_on_each_resource(
    operation: str, params: dict[str, object], resources: list[str]
) -> None:
    found = await needs(
        operation,
        params,
        account_id="000000000000",
        region="us-east-1",
        store=MemoryResourceStore(),
    )
    assert [(need.action, need.resource) for need in found] == [
        (f"sagemaker:{operation}", resource) for resource in resources
    ]


async def test_conditions_may_ask_for_the_tags_of_a_request() -> None:
    tags = [{"Key": "team", "Value": "search"}, {"Key": "stage", "Value": "test"}]
    need, _ = await needs(
        "CreateModel",
        {"ModelName": "m", "Tags": tags},
        account_id="000000000000",
        region="us-east-1",
        store=MemoryResourceStore(),
    )
    assert need.context == {
        "aws:RequestTag/team": "search",
        "aws:RequestTag/stage": "test",
        "aws:TagKeys": ("team", "stage"),
    }


ROLE = "arn:aws:iam::999988887777:role/service-role/SageMaker"


@pytest.mark.parametrize(
    ("operation", "params", "role"),
    [
        ("CreateModel", {"ModelName": "m", "ExecutionRoleArn": ROLE}, ROLE),
        ("CreateModel", {"ModelName": "m"}, "arn:aws:iam::000000000000:root"),
        ("CreateEndpointConfig", {"EndpointConfigName": "c", "ExecutionRoleArn": ROLE}, ROLE),
    ],
)
async def test_what_acts_as_a_role_needs_that_the_caller_may_pass_it(
    operation: str, params: dict[str, object], role: str
) -> None:
    _, need = await needs(
        operation,
        params,
        account_id="000000000000",
        region="us-east-1",
        store=MemoryResourceStore(),
    )
    assert (need.action, need.resource) == ("iam:PassRole", role)
    assert need.context == {"iam:PassedToService": "sagemaker.amazonaws.com"}
    assert bool(need.advice) is ("ExecutionRoleArn" not in params)
