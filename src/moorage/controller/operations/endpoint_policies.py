"""PutEndpointPolicy, GetEndpointPolicy, DeleteEndpointPolicy: the resource-based policy of an endpoint.

Who decides by it: `moorage.controller.authorization` here, and every gateway, which is told of each change.
"""

from moorage.auth.policy import PolicyError, PolicyKind, compile_policy
from moorage.auth.policy_documents import check_condition_keys
from moorage.controller.operations.base import Call, Params
from moorage.errors import ResourceNotFound, ValidationException
from moorage.resources import Endpoint, EndpointStatus

_REFUSED = (EndpointStatus.DELETING, EndpointStatus.FAILED)


async def put_endpoint_policy(call: Call, params: Params) -> Params:
    _check(params["ResourcePolicy"])
    while True:
        endpoint = await _existing(call, params["EndpointName"])
        if endpoint.status in _REFUSED:
            raise ValidationException(
                f'Cannot put a policy on endpoint "{endpoint.arn}" because its status is {endpoint.status}.'
            )
        if await call.store.put_policy(endpoint, params["ResourcePolicy"], _REFUSED):
            return {"EndpointArn": endpoint.arn}


async def get_endpoint_policy(call: Call, params: Params) -> Params:
    endpoint = await _existing(call, params["EndpointName"])
    document = await call.store.get_policy(endpoint.arn)
    if document is None:
        raise ValidationException(f'Endpoint "{endpoint.arn}" has no policy.')
    return {"EndpointName": endpoint.name, "EndpointArn": endpoint.arn, "ResourcePolicy": document}


async def delete_endpoint_policy(call: Call, params: Params) -> Params:
    await call.store.delete_policy(await _existing(call, params["EndpointName"]))
    return {}


def _check(document: str) -> None:
    """Raises `ValidationException` for what is no resource-based policy."""
    if not document.isascii():
        position = next(number for number, each in enumerate(document, 1) if not each.isascii())
        raise ValidationException(
            f"ResourcePolicy: may contain ASCII characters only; character {position} is another."
        )
    try:
        policy = compile_policy(document, name="ResourcePolicy", kind=PolicyKind.RESOURCE)
        check_condition_keys(policy, document)
    except PolicyError as error:
        raise ValidationException(f"ResourcePolicy: {error}") from None


async def _existing(call: Call, name: str) -> Endpoint:
    endpoint = await call.store.get(Endpoint, call.account_id, name)
    if endpoint is None:
        raise ResourceNotFound(f'Could not find endpoint "{call.arn(Endpoint, name)}".')
    return endpoint
