"""Resources for tests."""

from datetime import UTC, datetime, timedelta
from typing import Any

from moorage.resources import Endpoint, EndpointConfig, EndpointStatus, Model, arn

ACCOUNT = "111122223333"
REGION = "us-east-1"
MORNING = datetime(2026, 3, 1, 6, 30, 0, 123456, tzinfo=UTC)


def model(name: str = "churn", *, account_id: str = ACCOUNT, minutes: float = 0, **changes: Any) -> Model:
    values: dict[str, Any] = {
        "account_id": account_id,
        "name": name,
        "arn": arn("model", region=REGION, account_id=account_id, name=name),
        "creation_time": MORNING + timedelta(minutes=minutes),
        "definition": {"ModelName": name, "PrimaryContainer": {"Image": "image:1"}},
    }
    return Model(**values | changes)


def config(name: str = "churn", *, account_id: str = ACCOUNT, minutes: float = 0) -> EndpointConfig:
    return EndpointConfig(
        account_id=account_id,
        name=name,
        arn=arn("endpoint-config", region=REGION, account_id=account_id, name=name),
        creation_time=MORNING + timedelta(minutes=minutes),
        definition={"EndpointConfigName": name},
    )


def endpoint(
    name: str = "churn", *, account_id: str = ACCOUNT, minutes: float = 0, **changes: Any
) -> Endpoint:
    values: dict[str, Any] = {
        "account_id": account_id,
        "name": name,
        "arn": arn("endpoint", region=REGION, account_id=account_id, name=name),
        "status": EndpointStatus.CREATING,
        "endpoint_config_name": "config-1",
        "deployment_id": None,
        "target_config_name": "config-1",
        "target_deployment_id": "d1",
        "creation_time": MORNING + timedelta(minutes=minutes),
        "last_modified_time": MORNING + timedelta(minutes=minutes),
        "failure_reason": None,
        "deployed": None,
        "definition": {"EndpointName": name, "EndpointConfigName": "config-1"},
    }
    return Endpoint(**values | changes)
