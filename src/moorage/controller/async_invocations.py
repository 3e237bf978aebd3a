"""`POST /async-invocations`: where the gateway hands over what it was asked by InvokeEndpointAsync.

The gateway has verified the signature and validated every member; it says which operation it speaks for, in a header
that no client's request can carry through it. The answer is given when the invocation is on disk.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from moorage.async_inference.acceptance import accept
from moorage.async_inference.base import AsyncInvocation, QueueOverloaded
from moorage.controller.fleet import DeploymentPlan
from moorage.errors import ServiceError, ServiceUnavailable, UnknownOperationException, ValidationError
from moorage.storage.failures import DatabaseUnavailable
from moorage.wire import faults, header_text


def acceptance_routes(
    *,
    deployed: Callable[[str, str], DeploymentPlan | None],
    put: Callable[[AsyncInvocation], Awaitable[None]],
    wake: Callable[[str, str], None],
) -> list[Route]:
    async def answer(request: Request) -> Response:
        try:
            return await enqueue(request)
        except ServiceError as error:
            status, content_type, body = faults.render(error)
            headers = {"content-type": content_type, "x-amzn-ErrorType": error.code}
            return Response(body, status_code=status, headers=headers)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it

    async def enqueue(request: Request) -> Response:
        headers = header_text.decode_all(request.scope["headers"])
        if headers.get("x-moorage-operation") != "InvokeEndpointAsync":
            raise UnknownOperationException("There is no POST /async-invocations here.")
        account_id, name = headers["x-moorage-account-id"], headers["x-moorage-endpoint-name"]
        plan = deployed(account_id, name)
        if plan is None:
            raise ValidationError(
                f"Endpoint {name} of account {account_id} not found.", ErrorCode="ENDPOINT_NOT_FOUND"
            )
        config = plan.async_inference_config
        if config is None:
            raise ValidationError(
                f"Endpoint {name} of account {account_id} is not an asynchronous endpoint.",
                ErrorCode="ENDPOINT_IS_NOT_ASYNCHRONOUS",
            )
        body = await request.body()
        try:
            accepted = await accept(
                put,
                account_id=account_id,
                endpoint_name=name,
                config=config,
                headers=headers,
                body=body,
                now=datetime.now(UTC),
                role_arn=plan.role_arn,
                role_exists=plan.role_exists,
            )
        except QueueOverloaded as error:
            raise ServiceUnavailable(
                f"The invocation was not accepted: {error}. Please try again."
            ) from error
        except DatabaseUnavailable as error:  # the log has been told
            raise ServiceUnavailable(
                "The invocation could not be stored in time, and was not accepted. Please try again."
            ) from error
        wake(account_id, name)
        response = JSONResponse({"InferenceId": accepted.inference_id}, status_code=202)
        locations = {
            b"x-amzn-sagemaker-outputlocation": accepted.output_location,
            b"x-amzn-sagemaker-failurelocation": accepted.failure_location,
        }
        response.raw_headers += [
            (name, location.encode()) for name, location in locations.items() if location is not None
        ]
        return response

    return [Route("/async-invocations", answer, methods=["POST"])]
