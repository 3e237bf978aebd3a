"""What every operation is given, and the words and checks that several share."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from moorage.auth.execution_roles import CannotAssumeRole
from moorage.controller.execution_roles import ExecutionRoles
from moorage.errors import ValidationException
from moorage.resources import Endpoint, EndpointConfig, Model, ResourceKind, arn
from moorage.storage.base import ListQuery, Page, R, ResourceStore, Tags
from moorage.storage.objects import Objects

Params = dict[str, Any]
Operation = Callable[["Call", Params], Awaitable[Params]]

MOST_TAGS = 50

_KINDS: Mapping[type[Any], tuple[ResourceKind, str]] = {
    Model: ("model", "model"),
    EndpointConfig: ("endpoint-config", "endpoint configuration"),
    Endpoint: ("endpoint", "endpoint"),
}
"""The kind as ARNs spell it, and as messages do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One authenticated and authorised request, and what operations may touch.

    `account_id` is that of the resources, which is not the principal's where an ARN names an endpoint of another one.
    `wake(account_id, endpoint_name)` tells the reconciler that an endpoint's row has changed. `instance_counts`
    gives the running instances of an endpoint by variant. `roles` knows the execution roles. `objects` is the S3 that
    models are read from; without it nothing is checked of their URLs.
    """

    account_id: str
    region: str
    principal_arn: str
    request_id: str
    time: datetime
    store: ResourceStore
    wake: Callable[[str, str], None]
    instance_counts: Callable[[str, str], Mapping[str, int]]
    roles: ExecutionRoles
    objects: Objects | None

    def arn(self, kind: type[Any], name: str) -> str:
        return arn(_KINDS[kind][0], region=self.region, account_id=self.account_id, name=name)

    async def check_role(self, role_arn: str | None, *, source_arn: str) -> bool:
        """Return if the platform may act as that role for the resource that is being made: whether it exists.

        Raises:
            ValidationException: it may not; the text is AWS's.
        """
        try:
            role = await self.roles.check(self.account_id, role_arn, source_arn=source_arn)
        except CannotAssumeRole as error:
            raise ValidationException(str(error)) from None
        return role is not None

    async def existing(self, kind: type[R], name: str) -> R:
        """The resource of that name.

        Raises:
            ValidationException: there is none.
        """
        resource = await self.store.get(kind, self.account_id, name)
        if resource is None:
            raise not_found(kind, self.arn(kind, name))
        return resource


def not_found(kind: type[Any], arn: str) -> ValidationException:
    return ValidationException(f'Could not find {_KINDS[kind][1]} "{arn}".')


def already_exists(kind: type[Any], arn: str) -> ValidationException:
    return ValidationException(f'Cannot create already existing {_KINDS[kind][1]} "{arn}".')


def list_query(params: Params) -> ListQuery:
    """The members that the List operations have in common are those of `ListQuery`, in AWS's spelling."""
    return ListQuery(**{_snake_case(name): value for name, value in params.items()})


def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def listing(member: str, page: Page[R], summarize: Callable[[R], Params]) -> Params:
    return {member: [summarize(item) for item in page.items], "NextToken": page.next_token}


def definition_of(params: Params) -> Params:
    """What is kept of a Create request. Tags are kept apart: they change later."""
    return {name: value for name, value in params.items() if name != "Tags"}


def tags_of(params: Params) -> Tags:
    """The tags of a request.

    Raises:
        ValidationException: a key is given twice or is reserved.
    """
    tags: dict[str, str] = {}
    for tag in params.get("Tags", []):
        if tag["Key"].lower().startswith("aws:"):
            raise ValidationException("aws: prefixed tag key names are not allowed for external use.")
        if tag["Key"] in tags:
            raise ValidationException(f'The tag key "{tag["Key"]}" is given more than once.')
        tags[tag["Key"]] = tag["Value"]
    return tags


def require_one_of(subject: str, definition: Mapping[str, Any], names: Sequence[str]) -> str:
    """The one of these members that is given.

    Raises:
        ValidationException: none or several are.
    """
    given = [name for name in names if definition.get(name) not in (None, [])]
    if len(given) != 1:
        raise ValidationException(f"{subject} must have exactly one of {' and '.join(names)}.")
    return given[0]


def require_publish_frequency(definition: Mapping[str, Any]) -> None:
    """The enum of these numbers is in the model's prose only."""
    seconds = definition.get("MetricPublishFrequencyInSeconds", 60)
    if seconds not in (10, 30, 60, 120, 180, 240, 300):
        raise ValidationException(
            f"MetricPublishFrequencyInSeconds must be one of 10, 30, 60, 120, 180, 240, 300, not {seconds}."
        )
