"""What a deployment is made from."""

from typing import Any

from moorage.controller.fleet import DeploymentPlan
from moorage.resources import ROLE_EXISTS

ROLE = "arn:aws:iam::000000000000:role/"


def plan(*models: dict[str, Any]) -> DeploymentPlan:
    container = {"Image": "moorage/modelhost"}
    document = {
        "EndpointConfig": {
            "ExecutionRoleArn": f"{ROLE}of-the-configuration",
            "ProductionVariants": [
                {"VariantName": f"v{number}", "ModelName": f"m{number}"} for number in range(len(models))
            ],
        },
        "Models": {
            f"m{number}": {"PrimaryContainer": container, **model} for number, model in enumerate(models)
        },
    }
    return DeploymentPlan.from_document(document)


def test_the_first_model_s_role_reads_inputs_and_writes_results() -> None:
    first = {"ExecutionRoleArn": f"{ROLE}first", ROLE_EXISTS: True}
    made = plan(first, {"ExecutionRoleArn": f"{ROLE}second"})
    assert (made.role_arn, made.role_exists) == (f"{ROLE}first", True)
    assert [(each.role_arn, each.role_exists) for each in made.variants] == [
        (f"{ROLE}first", True),
        (f"{ROLE}second", False),
    ]


def test_a_role_stays_what_it_was_when_the_model_was_made() -> None:
    made = plan({"ExecutionRoleArn": f"{ROLE}r", ROLE_EXISTS: True}, {})
    stored = DeploymentPlan.from_document(made.to_document(resolution_time=0.0))
    assert [(each.role_arn, each.role_exists) for each in stored.variants] == [
        (f"{ROLE}r", True),
        (None, False),
    ]
