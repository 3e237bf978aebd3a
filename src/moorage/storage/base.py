"""Where the resources of the control plane are kept: the seam, and the values that cross it."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Literal, Protocol, TypedDict, TypeVar, Unpack

from moorage.resources import Definition, Endpoint, EndpointConfig, EndpointStatus, Model

Resource = Model | EndpointConfig | Endpoint
R = TypeVar("R", Model, EndpointConfig, Endpoint)
Tags = Mapping[str, str]
SortBy = Literal["Name", "CreationTime", "Status"]
SortOrder = Literal["Ascending", "Descending"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """Filters, order and page of a List operation. "After" includes the time itself, "Before" does not.

    `name_contains` ignores case. Status and time of modification are those of endpoints.
    """

    name_contains: str | None = None
    creation_time_before: datetime | None = None
    creation_time_after: datetime | None = None
    last_modified_time_before: datetime | None = None
    last_modified_time_after: datetime | None = None
    status_equals: str | None = None
    sort_by: SortBy = "CreationTime"
    sort_order: SortOrder = "Descending"
    max_results: int = 10
    next_token: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[R]):
    """Some of the resources that a query finds; `next_token` leads to those after them."""

    items: tuple[R, ...]
    next_token: str | None


class EndpointChanges(TypedDict, total=False):
    """What may change in an endpoint. `last_modified_time` is now unless given."""

    status: EndpointStatus
    endpoint_config_name: str
    deployment_id: str | None
    target_config_name: str | None
    target_deployment_id: str | None
    last_modified_time: datetime
    failure_reason: str | None
    deployed: Definition | None
    definition: Definition


class ResourceStore(Protocol):
    """Models, endpoint configs and endpoints with their tags, of all accounts.

    A resource is one that was created, not whatever has its name now: what is done to a resource that was deleted
    and created anew since it was read does nothing.
    """

    async def create(self, resource: Resource, tags: Tags) -> bool:
        """False, and nothing done, when the account has one of that kind whose name differs at most in case."""

    async def get(self, kind: type[R], account_id: str, name: str) -> R | None:
        """The resource of exactly that name."""

    async def page(self, kind: type[R], account_id: str, query: ListQuery) -> Page[R]:
        """One page of the resources that a query finds.

        Raises:
            ValidationException: the token is not one that this query gave.
        """

    async def all_endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints of all accounts."""

    async def endpoint_statuses(self) -> Mapping[tuple[str, EndpointStatus], int]:
        """How many endpoints each account has in each status."""

    async def endpoint_of(self, arn: str) -> Endpoint | None:
        """The endpoint with this ARN, which has its name in lower case."""

    async def delete(self, resource: Resource) -> bool:
        """With its tags and its policy; False when it is not there any more."""

    async def transition(
        self, endpoint: Endpoint, expected: Collection[EndpointStatus], **changes: Unpack[EndpointChanges]
    ) -> Endpoint | None:
        """Change an endpoint, in one step, provided that its status is an expected one.

        None, and nothing done, when the status is another, or when the endpoint has entered or finished a
        deployment since `endpoint` was read (`deployment_id` or `target_deployment_id` differ). So of two actors
        who both saw the same state at most one moves it on.
        """

    async def get_tags(self, arn: str) -> Tags | None:
        """None when there is no such resource."""

    async def update_tags(self, arn: str, change: Callable[[Tags], Tags]) -> Tags | None:
        """Replace the tags by what `change` makes of them, with no other change in between; None as above.

        What `change` raises is passed on, and leaves the tags as they were.
        """

    async def put_policy(self, endpoint: Endpoint, document: str, unless: Collection[EndpointStatus]) -> bool:
        """Give an endpoint this resource-based policy in place of any other, provided that its status is none of
        these. False, and nothing done, when it is, or when the endpoint is not there any more."""

    async def delete_policy(self, endpoint: Endpoint) -> None:
        """Does nothing when there is none."""

    async def get_policy(self, arn: str) -> str | None:
        """The policy of the endpoint with this ARN."""

    async def tags_and_policy(self, arn: str) -> tuple[Tags | None, str | None]:
        """What `get_tags` and `get_policy` give, at one moment."""

    async def all_policies(self) -> Mapping[str, str]:
        """The policies of the endpoints of all accounts, by ARN."""

    async def all_endpoint_tags(self) -> Mapping[str, Tags]:
        """The tags of the endpoints of all accounts that have some, by ARN."""
