"""The store in memory, for tests: the same behaviour, gone with the process."""

import dataclasses
import json
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar, Unpack

from moorage.resources import Endpoint, EndpointStatus
from moorage.storage import page_token
from moorage.storage.base import EndpointChanges, ListQuery, Page, R, Resource, Tags
from moorage.storage.database import to_json

S = TypeVar("S", bound=Resource)


class MemoryResourceStore:
    def __init__(self) -> None:
        self._resources: dict[str, Resource] = {}
        self._tags: dict[str, Tags] = {}
        self._policies: dict[str, str] = {}
        self._page_token_key = secrets.token_bytes(32)

    async def create(self, resource: Resource, tags: Tags) -> bool:
        if resource.arn in self._resources:
            return False
        self._resources[resource.arn] = _stored(resource)
        self._tags[resource.arn] = dict(tags)
        return True

    async def get(self, kind: type[R], account_id: str, name: str) -> R | None:
        found = [item for item in self._all(kind) if (item.account_id, item.name) == (account_id, name)]
        return found[0] if found else None

    async def page(self, kind: type[R], account_id: str, query: ListQuery) -> Page[R]:
        after = page_token.decode(self._page_token_key, kind, account_id, query)
        descending = query.sort_order == "Descending"
        found = [item for item in self._all(kind) if item.account_id == account_id and _matches(item, query)]
        found.sort(key=lambda item: _sort_key(item, query), reverse=descending)
        if after is not None:
            found = [
                item
                for item in found
                if (_sort_key(item, query) < after if descending else _sort_key(item, query) > after)
            ]
        items = tuple(found[: query.max_results])
        if len(found) <= query.max_results:
            return Page(items=items, next_token=None)
        last = _sort_key(items[-1], query)
        token = page_token.encode(self._page_token_key, kind, account_id, query, last)
        return Page(items=items, next_token=token)

    async def all_endpoints(self) -> tuple[Endpoint, ...]:
        return tuple(self._all(Endpoint))

    async def endpoint_statuses(self) -> Mapping[tuple[str, EndpointStatus], int]:
        return Counter((endpoint.account_id, endpoint.status) for endpoint in self._all(Endpoint))

    async def endpoint_of(self, arn: str) -> Endpoint | None:
        found = self._resources.get(arn)
        return found if isinstance(found, Endpoint) else None

    async def delete(self, resource: Resource) -> bool:
        if self._present(resource) is None:
            return False
        del self._resources[resource.arn], self._tags[resource.arn]
        self._policies.pop(resource.arn, None)
        return True

    async def transition(
        self, endpoint: Endpoint, expected: Collection[EndpointStatus], **changes: Unpack[EndpointChanges]
    ) -> Endpoint | None:
        present = self._present(endpoint)
        if present is None or present.status not in expected:
            return None
        if (present.deployment_id, present.target_deployment_id) != (
            endpoint.deployment_id,
            endpoint.target_deployment_id,
        ):
            return None
        changes.setdefault("last_modified_time", datetime.now(UTC))
        changed = _stored(dataclasses.replace(present, **changes))
        self._resources[endpoint.arn] = changed
        return changed

    async def get_tags(self, arn: str) -> Tags | None:
        return self._tags.get(arn)

    async def update_tags(self, arn: str, change: Callable[[Tags], Tags]) -> Tags | None:
        if arn not in self._tags:
            return None
        self._tags[arn] = dict(change(self._tags[arn]))
        return self._tags[arn]

    async def put_policy(self, endpoint: Endpoint, document: str, unless: Collection[EndpointStatus]) -> bool:
        present = self._present(endpoint)
        if present is None or present.status in unless:
            return False
        self._policies[endpoint.arn] = document
        return True

    async def delete_policy(self, endpoint: Endpoint) -> None:
        if self._present(endpoint) is not None:
            self._policies.pop(endpoint.arn, None)

    async def get_policy(self, arn: str) -> str | None:
        return self._policies.get(arn)

    async def tags_and_policy(self, arn: str) -> tuple[Tags | None, str | None]:
        return await self.get_tags(arn), await self.get_policy(arn)

    async def all_policies(self) -> Mapping[str, str]:
        return dict(self._policies)

    async def all_endpoint_tags(self) -> Mapping[str, Tags]:
        found = {endpoint.arn: self._tags[endpoint.arn] for endpoint in self._all(Endpoint)}
        return {arn: tags for arn, tags in found.items() if tags}

    def _all(self, kind: type[R]) -> list[R]:
        return [item for item in self._resources.values() if isinstance(item, kind)]

    def _present(self, resource: S) -> S | None:
        present = self._resources.get(resource.arn)
        if not isinstance(present, type(resource)):
            return None
        same = (present.name, present.creation_time) == (resource.name, resource.creation_time)
        return present if same else None


def _stored(resource: S) -> S:
    """As it would come back from a database: JSON, shared with nobody."""
    copies: dict[str, Any] = {"definition": json.loads(to_json(resource.definition))}
    if isinstance(resource, Endpoint):
        copies["deployed"] = json.loads(to_json(resource.deployed))
    return dataclasses.replace(resource, **copies)


def _matches(item: Resource, query: ListQuery) -> bool:
    wanted = (
        query.name_contains is None or query.name_contains.lower() in item.name.lower(),
        query.creation_time_before is None or item.creation_time < query.creation_time_before,
        query.creation_time_after is None or item.creation_time >= query.creation_time_after,
    )
    if not isinstance(item, Endpoint):
        return all(wanted)
    modified = item.last_modified_time
    return all(wanted) and all(
        (
            query.last_modified_time_before is None or modified < query.last_modified_time_before,
            query.last_modified_time_after is None or modified >= query.last_modified_time_after,
            query.status_equals is None or item.status == query.status_equals,
        )
    )


def _sort_key(item: Resource, query: ListQuery) -> tuple[str, str]:
    if query.sort_by == "Status" and isinstance(item, Endpoint):
        return str(item.status), item.name
    if query.sort_by == "CreationTime":
        return item.creation_time.astimezone(UTC).isoformat(timespec="microseconds"), item.name
    return item.name, item.name
