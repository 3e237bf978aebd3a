"""The operations that this server has, by service, as the installed botocore knows them."""

from collections.abc import Iterable, Mapping
from functools import cache

import botocore.session
from botocore.model import OperationModel

from moorage.cli.api_coverage import coverage, read_decisions
from moorage.controller import iam, operations, sts

SERVED: Mapping[str, Iterable[str]] = {
    "sagemaker": operations.OPERATIONS,
    "iam": iam.OPERATIONS,
    "sts": sts.OPERATIONS,
    "sagemaker-runtime": ("InvokeEndpoint", "InvokeEndpointAsync", "InvokeEndpointWithResponseStream"),
}


@cache
def models(service: str) -> tuple[OperationModel, ...]:
    model = botocore.session.get_session().get_service_model(service)
    return tuple(model.operation_model(name) for name in SERVED[service])


@cache
def decided(service: str, operation: str) -> Mapping[str, str]:
    """What `moorage api-coverage` says of each member of a request."""
    return {
        entry.member: entry.status
        for entry in coverage({service: read_decisions()[service]})
        if entry.operation == operation and entry.side == "input"
    }
