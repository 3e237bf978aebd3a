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
        ("CreateModel", {"ModelName": "Big"}, [f"{ARN}:model/big"]),
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
        caller_account_id="000000000000",
        region="us-east-1",
        store=MemoryResourceStore(),
    )
    assert [(need.action, need.resource) for need in found] == [
        (f"sagemaker:{operation}", resource) for resource in resources
    ]


async def test_conditions_may_ask_for_the_tags_of_a_request() -> None:
    tags = [{"Key": "team", "Value": "search"}, {"Key": "stage", "Value": "test"}]
    [need] = await needs(
        "CreateModel",
        {"ModelName": "m", "Tags": tags},
        account_id="000000000000",
        caller_account_id="000000000000",
        region="us-east-1",
        store=MemoryResourceStore(),
    )
    assert need.context == {
        "aws:RequestTag/team": "search",
        "aws:RequestTag/stage": "test",
        "aws:TagKeys": ("team", "stage"),
    }
