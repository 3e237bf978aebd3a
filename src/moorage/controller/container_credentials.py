"""`/_moorage/container-credentials/INSTANCE/SECRET`: the credentials of an instance's execution role.

The answer is what the SDKs of AWS expect of the endpoint that their container provider asks (Amazon ECS Developer
Guide, "Task IAM role"). Whoever knows the secret of an instance that is there is given them; the gateway lets only
this machine ask. They last an hour, and SDKs ask again some minutes before that.
"""

import hmac
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from moorage.auth.execution_roles import CannotAssumeRole, root_arn
from moorage.config import CONTAINER_CREDENTIALS_PATH
from moorage.controller.execution_roles import ExecutionRoles
from moorage.launchers.base import InstanceState, InstanceStatus
from moorage.resources import arn
from moorage.storage.failures import DatabaseUnavailable

_ALIVE = (InstanceStatus.STARTING, InstanceStatus.IN_SERVICE, InstanceStatus.UNHEALTHY)


def container_credentials_routes(
    *, instance: Callable[[str], InstanceState | None], roles: ExecutionRoles, region: str
) -> list[Route]:
    async def answer(request: Request) -> Response:
        if request.headers.get("x-moorage-operation") != "GetContainerCredentials":
            return _not_found()
        state = instance(request.path_params["instance_id"])
        if state is None or state.status not in _ALIVE or not _knows(state, request.path_params["secret"]):
            return _not_found()
        spec = state.spec
        try:
            issued = await roles.credentials(
                spec.account_id,
                spec.role_arn,
                source_arn=arn(
                    "endpoint", region=region, account_id=spec.account_id, name=spec.endpoint_name
                ),
                must_exist=spec.role_exists,
            )
        except CannotAssumeRole as error:
            return JSONResponse({"code": "AccessDenied", "message": str(error)}, 403)
        except DatabaseUnavailable:
            return JSONResponse({"message": "The server's database does not answer in time."}, 503)
        return JSONResponse(
            {
                "RoleArn": spec.role_arn or root_arn(spec.account_id),
                "AccessKeyId": issued.access_key_id,
                "SecretAccessKey": issued.secret_access_key,
                "Token": issued.session_token,
                "Expiration": issued.expiration.strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
            headers={"cache-control": "no-store"},
        )

    return [Route(f"{CONTAINER_CREDENTIALS_PATH}{{instance_id}}/{{secret}}", answer, methods=["GET"])]


def _knows(state: InstanceState, secret: str) -> bool:
    given = state.spec.credentials_secret
    return bool(given) and hmac.compare_digest(given.encode(), secret.encode(errors="replace"))


def _not_found() -> Response:
    """The same for an instance that is not there and for a wrong secret."""
    return JSONResponse({"message": "There are no such credentials."}, 404)
