"""The resources of the control plane as immutable values.

Names, members and statuses are those of botocore's `sagemaker` service model. What a resource was created
from is kept whole in `definition` (the request's members, already validated), so that every member of the
model survives a round trip, also those that no code here reads.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, NamedTuple

Definition = Mapping[str, Any]
ResourceKind = Literal["model", "endpoint-config", "endpoint"]


ROLE_EXISTS = "_ExecutionRoleExists"
"""In a model's definition: its execution role existed when it was made. No member of AWS's, so no reply shows it."""


def arn(kind: ResourceKind, *, region: str, account_id: str, name: str) -> str:
    """The ARN of a resource. SageMaker lower-cases the name in it."""
    return f"arn:aws:sagemaker:{region}:{account_id}:{kind}/{name.lower()}"


class EndpointAddress(NamedTuple):
    """What the ARN of an endpoint tells. The name is in lower case, whatever the endpoint's own."""

    region: str
    account_id: str
    name: str

    @property
    def arn(self) -> str:
        return arn("endpoint", region=self.region, account_id=self.account_id, name=self.name)


def address_of(endpoint_arn: str) -> EndpointAddress | None:
    """None when it is no ARN of an endpoint."""
    parts = _ENDPOINT_ARN.fullmatch(endpoint_arn)
    if parts is None or len(parts["name"]) > _LONGEST_NAME:
        return None
    return EndpointAddress(parts["region"], parts["account_id"], parts["name"].lower())


_ENDPOINT_ARN = re.compile(
    r"arn:aws:sagemaker:(?P<region>[a-z0-9-]{1,64}):(?P<account_id>[0-9]{12})"
    r":endpoint/(?P<name>[a-zA-Z0-9](?:-*[a-zA-Z0-9])*)"
)
_LONGEST_NAME = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A SageMaker Model: one container or several, and where their artifacts are."""

    account_id: str
    name: str
    arn: str
    creation_time: datetime
    definition: Definition


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointConfig:
    """A SageMaker EndpointConfig: production variants and everything that goes with them."""

    account_id: str
    name: str
    arn: str
    creation_time: datetime
    definition: Definition


class EndpointStatus(StrEnum):
    """States as spelt on the wire; see `docs/endpoint-lifecycle.md` for who moves them."""

    OUT_OF_SERVICE = "OutOfService"
    CREATING = "Creating"
    UPDATING = "Updating"
    SYSTEM_UPDATING = "SystemUpdating"
    ROLLING_BACK = "RollingBack"
    IN_SERVICE = "InService"
    DELETING = "Deleting"
    FAILED = "Failed"
    UPDATE_ROLLBACK_FAILED = "UpdateRollbackFailed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A SageMaker Endpoint.

    `endpoint_config_name` is the configuration in service. `target_config_name` is the one on its way in
    while the endpoint is Creating or Updating, else None. `deployment_id` names the fleet of instances in
    service and `target_deployment_id` the one being started; both change with every deployment, so an
    instance always tells which deployment it belongs to. `deployed` is a snapshot of the variants and
    models behind the fleet in service (None before the first deployment succeeded): later changes of the
    configuration or model resources do not touch a running endpoint.
    """

    account_id: str
    name: str
    arn: str
    status: EndpointStatus
    endpoint_config_name: str
    deployment_id: str | None
    target_config_name: str | None
    target_deployment_id: str | None
    creation_time: datetime
    last_modified_time: datetime
    failure_reason: str | None
    deployed: Definition | None
    definition: Definition
