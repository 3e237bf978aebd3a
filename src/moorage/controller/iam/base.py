"""What the operations of IAM share: their call, pages, tags, and the checks of policy documents."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote

from moorage.auth.identities import Role, User, identity_arn
from moorage.auth.policy import Context, Policy, PolicyError, PolicyKind, compile_policy
from moorage.auth.policy_documents import check_condition_keys
from moorage.controller.permissions import Permissions, Requester
from moorage.errors import (
    InvalidInput,
    LimitExceeded,
    MalformedPolicyDocument,
    NoSuchEntity,
    ValidationError,
)
from moorage.storage.identities import I, IdentityStore

Members = Mapping[str, Any]
Output = dict[str, Any]
T = TypeVar("T")

NAME = {User.kind: "UserName", Role.kind: "RoleName"}
"""The member that names one."""

MOST_TAGS = 50
_PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of an operation, and what it works with."""

    action: str
    requester: Requester
    time: datetime
    store: IdentityStore
    permissions: Permissions

    @property
    def account_id(self) -> str:
        return self.requester.account_id

    async def check(self, resource: str, context: Context | None = None) -> None:
        """Raises `AccessDeniedException` unless the requester may do this to `resource`."""
        await self.permissions.check(self.requester, f"iam:{self.action}", resource, context=context)

    def arn(self, kind: str, name: str, path: str = "/") -> str:
        return identity_arn(kind, self.account_id, path, name)

    async def identity(self, kind: type[I], members: Members) -> I:
        """The user or role that the request names, with which the requester may do this."""
        name = members[NAME[kind.kind]]
        context = request_context(members)
        try:
            found = await self.store.get(kind, self.account_id, name)
        except NoSuchEntity:
            await self.check(
                self.arn(kind.kind, name), context
            )  # only who may know is told that there is none
            raise
        await self.check(found.arn, {**context, **resource_context(found.tags)})
        return found


def request_context(members: Members) -> dict[str, str | tuple[str, ...]]:
    """The condition keys that follow from what is asked for."""
    tags = {tag["Key"]: tag["Value"] for tag in members.get("Tags", ())}
    context: dict[str, str | tuple[str, ...]] = {f"aws:RequestTag/{key}": tags[key] for key in tags}
    if keys := (*tags, *members.get("TagKeys", ())):
        context["aws:TagKeys"] = keys
    if "PolicyArn" in members:
        context["iam:PolicyARN"] = members["PolicyArn"]
    return context


def resource_context(tags: Mapping[str, str]) -> dict[str, str]:
    """The condition keys that follow from the tags of what the request is about."""
    return {f"{prefix}:ResourceTag/{key}": value for prefix in ("aws", "iam") for key, value in tags.items()}


# --- Pages ---------------------------------------------------------------------------------------------


def page(items: Sequence[T], members: Members, key: Callable[[T], str]) -> tuple[list[T], Output]:
    """The part of `items` that is asked for, in the order of their keys, and what the reply says of the rest."""
    after = _decode_marker(members["Marker"]) if "Marker" in members else ""
    rest = sorted((item for item in items if key(item) > after), key=key)
    shown = rest[: members.get("MaxItems", _PAGE)]
    if len(shown) == len(rest):
        return shown, {"IsTruncated": False}
    marker = base64.urlsafe_b64encode(key(shown[-1]).encode()).decode()
    return shown, {"IsTruncated": True, "Marker": marker}


def _decode_marker(marker: str) -> str:
    try:
        return base64.b64decode(marker, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise ValidationError(f"Invalid Marker: {marker}") from None


# --- Tags ----------------------------------------------------------------------------------------------


def tags_of(members: Members, present: Mapping[str, str] | None = None) -> dict[str, str]:
    """The tags of a request, over those that are present.

    Raises:
        InvalidInput: one is there twice, or there are too many.
    """
    given = {tag["Key"]: tag["Value"] for tag in members.get("Tags", ())}
    if len({key.lower() for key in given}) < len(members.get("Tags", ())):
        raise InvalidInput("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
    lower = {key.lower() for key in given}
    kept = {key: value for key, value in (present or {}).items() if key.lower() not in lower}
    if len(kept) + len(given) > MOST_TAGS:
        raise InvalidInput(f"The number of tags has reached the maximum limit: {MOST_TAGS}")
    return kept | given


def tag_list(tags: Mapping[str, str]) -> list[Output]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


# --- Policy documents ----------------------------------------------------------------------------------


def check_policy(document: str, kind: PolicyKind = PolicyKind.IDENTITY) -> Policy:
    """For a policy that is to be stored. Raises `MalformedPolicyDocument`."""
    try:
        policy = compile_policy(document, name="the policy", kind=kind)
        check_condition_keys(policy, document)
        return policy
    except PolicyError as error:
        raise MalformedPolicyDocument(str(error)) from error


def check_size(quota: str, most: int, *documents: str) -> None:
    """Raises `LimitExceeded` if they have more characters, white space aside, than a quota allows."""
    if sum(len(word) for document in documents for word in document.split()) > most:
        raise LimitExceeded(f"Cannot exceed quota for {quota}: {most}")


def encoded(document: str) -> str:
    """As IAM replies with policies."""
    return quote(document, safe="")


def refuse_boundary(members: Members) -> None:
    """Without it, an identity would be made that may do more than was meant."""
    if "PermissionsBoundary" in members:
        raise InvalidInput("This server does not have permissions boundaries.")
