"""Whether what the Principal element of a policy names exists on this server."""

import re
from typing import Final

from moorage.auth.identities import Role, User
from moorage.auth.policy_principals import Principals
from moorage.errors import NoSuchEntity
from moorage.storage.identities import IdentityStore

_SERVICE: Final = re.compile(r".+\.(amazonaws\.com(\.cn)?|aws\.internal|aws\.com)")
_WEB_IDENTITY_PROVIDERS: Final = frozenset(
    ("accounts.google.com", "cognito-identity.amazonaws.com", "graph.facebook.com", "www.amazon.com")
)
"""Those that need no resource of IAM ("AWS JSON policy elements: Principal", federated user principals)."""


async def missing_principal(store: IdentityStore, principals: Principals) -> tuple[str, str] | None:
    """The type and name of one that does not exist, if there is one. Services are not of this server: they only have
    to look like one of AWS's."""
    for account_id in sorted(principals.accounts):
        if not await _account_exists(store, account_id):
            return "AWS", f"arn:aws:iam::{account_id}:root"
    for arn in sorted(principals.arns):
        if not await _identity_exists(store, arn):
            return "AWS", arn
    for service in sorted(principals.services):
        if not _SERVICE.fullmatch(service):
            return "SERVICE", service
    for provider in sorted(principals.federated - _WEB_IDENTITY_PROVIDERS):
        return "FEDERATED", provider
    return None


async def _account_exists(store: IdentityStore, account_id: str) -> bool:
    try:
        await store.account(account_id)
    except NoSuchEntity:
        return False
    return True


async def _identity_exists(store: IdentityStore, arn: str) -> bool:
    """Whether there is the user or role of an ARN, or the one that a session's ARN names."""
    account_id, resource = arn.split(":", 5)[4:]
    kind, *path = resource.split("/")
    try:
        match kind:
            case "user":
                return (await store.get(User, account_id, path[-1])).arn == arn
            case "role":
                return (await store.get(Role, account_id, path[-1])).arn == arn
            case "assumed-role":
                await store.get(Role, account_id, path[0])
            case _:
                await store.get(User, account_id, path[0])
    except NoSuchEntity:
        return False
    return True
