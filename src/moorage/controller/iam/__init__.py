"""IAM: the operations that boto3's `iam` client calls, of accounts' users, roles, keys and policies."""

from collections.abc import Callable
from datetime import UTC, datetime

from moorage.controller.iam import absent, access_keys, policies, simulation, users_and_roles
from moorage.controller.iam.base import Call
from moorage.controller.permissions import Permissions, Requester
from moorage.controller.query import QueryApi, Reply
from moorage.storage.identities import IdentityStore

__all__ = ["OPERATIONS", "Iam"]

OPERATIONS = {
    **users_and_roles.OPERATIONS,
    **access_keys.OPERATIONS,
    **policies.OPERATIONS,
    **simulation.OPERATIONS,
    **absent.OPERATIONS,
}


class Iam:
    """Answers calls of IAM, each after its requester's permission for the very resource was checked."""

    def __init__(
        self, store: IdentityStore, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store = store
        self._permissions = Permissions(store)
        self._clock = clock
        self._api: QueryApi[Call] = QueryApi("iam", OPERATIONS)

    async def answer(self, body: bytes, requester: Requester, request_id: str) -> Reply:
        def make_call(action: str) -> Call:
            return Call(
                action=action,
                requester=requester,
                time=self._clock(),
                store=self._store,
                permissions=self._permissions,
            )

        return await self._api.answer(body, make_call, request_id)
