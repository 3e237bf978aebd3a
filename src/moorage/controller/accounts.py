"""`/_moorage/accounts`: the accounts of this installation.

| request | parameters | reply |
|---|---|---|
| `GET` | | `Accounts`, the oldest first |
| `POST` | `name` | `Account`, and its root's `AccessKey`: the only time that its secret is told |

For the account of the settings alone: another would learn who else there is, or make accounts without end. To make
one, `moorage:Write` is not enough, which those have who look after queues: `moorage:CreateAccount` is asked for too.
A refusal has a `message`. Private to the command line tools.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from moorage.auth.identities import Account
from moorage.controller import auditing
from moorage.controller.app import requester_of
from moorage.controller.permissions import Permissions
from moorage.errors import AccessDeniedException, ServiceError, ValidationError
from moorage.storage.identities import IdentityStore

_NAME = re.compile(r"[\x20-\x7e]{1,50}")
"""Organizations' CreateAccountName."""


def account_routes(store: IdentityStore, *, first_account_id: str) -> list[Route]:
    permissions = Permissions(store)

    async def accounts(request: Request) -> dict[str, Any]:
        return {"Accounts": [_described(account) for account in await store.accounts()]}

    async def create(request: Request) -> dict[str, Any]:
        await permissions.check(requester_of(request), "moorage:CreateAccount", "*")
        account, (key, secret) = await store.create_account(_name(request))
        return {
            "Account": _described(account),
            "AccessKey": {
                "AccessKeyId": key.access_key_id,
                "SecretAccessKey": secret,
                "Status": key.status,
                "CreateDate": key.created.isoformat(),
            },
        }

    def route(method: str, handler: Callable[[Request], Awaitable[dict[str, Any]]]) -> Route:
        async def answer(request: Request) -> Response:
            try:
                _check_first(request, first_account_id)
                return JSONResponse(await handler(request))
            except ServiceError as error:
                auditing.note_error(error)
                return JSONResponse({"message": error.message}, error.status)

        return Route("/_moorage/accounts", answer, methods=[method])

    return [route("GET", accounts), route("POST", create)]


def _check_first(request: Request, first_account_id: str) -> None:
    """Raises `AccessDeniedException`."""
    account_id = request.headers["x-moorage-account-id"]
    if account_id != first_account_id:
        raise AccessDeniedException(
            f"Accounts are the business of this installation's first account, {first_account_id}; "
            f"{request.headers['x-moorage-principal-arn']} belongs to another."
        )


def _name(request: Request) -> str:
    name = request.query_params.get("name", "")
    if not _NAME.fullmatch(name) or not name.strip():
        raise ValidationError(f"name must be 1 to 50 printable ASCII characters, not only spaces: {name!r}.")
    return name


def _described(account: Account) -> dict[str, Any]:
    return {
        "Id": account.account_id,
        "Name": account.name,
        "CreateDate": account.created.isoformat(),
    }
