"""Services that speak the Query protocol: from a form to the handler of its action, and back to XML."""

from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from typing import Any, Generic, TypeVar

from moorage.controller import auditing
from moorage.errors import InvalidAction, ServiceError
from moorage.wire import awsjson, awsquery, faults

Reply = tuple[int, str, bytes]
"""Status, content type, body."""

C = TypeVar("C")
Handler = Callable[[C, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""Takes the call and the members of the request, gives the members of the reply."""


class QueryApi(Generic[C]):
    """A service by botocore's name for it. Its model is read when it is called for the first time."""

    def __init__(self, service: str, handlers: Mapping[str, Handler[C]]) -> None:
        self._name = service
        self._handlers = handlers

    @cached_property
    def _service(self) -> awsjson.Service:
        return awsjson.load(self._name, self._handlers)

    async def answer(self, body: bytes, make_call: Callable[[str], C], request_id: str) -> Reply:
        """The reply to a form, an error's included. `make_call` gets the name of the action."""
        namespace = awsquery.namespace(next(iter(self._service.operations.values())))
        try:
            form = awsquery.decode(body)
            action = form.get("Action", "")
            auditing.note_operation(action)
            self._check(action, form.get("Version", ""))
            operation = self._service.operations[action]
            output = await self._handlers[action](make_call(action), awsquery.parse(operation, form))
            return 200, awsquery.CONTENT_TYPE, awsquery.render(operation, output, request_id)
        except ServiceError as error:
            auditing.note_error(error)
            rendered = faults.render_query(error, request_id, namespace=namespace)
            return error.status, awsquery.CONTENT_TYPE, rendered

    def _check(self, action: str, version: str) -> None:
        if action in self._handlers:
            return
        if action in self._service.names:
            raise InvalidAction(f"This server does not have the operation {action} of {self._name.upper()}.")
        raise InvalidAction(f"Could not find operation {action} for version {version}")
