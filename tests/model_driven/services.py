"""The operations that this server has, by service, as the installed botocore knows them."""

from collections.abc import Iterable, Mapping
from functools import cache

import botocore.session
from botocore.model import OperationModel

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
