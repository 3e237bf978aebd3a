"""STS: who am I, and temporary credentials. The protocol is AWS Query: form in, XML out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moorage.auth import sessions
from moorage.auth.identities import Role, assumed_role_arn
from moorage.auth.policy import PolicyError, PolicyKind, compile_policy
from moorage.auth.policy_documents import check_condition_keys
from moorage.auth.sealing import Sealer
from moorage.controller.permissions import Permissions, Requester
from moorage.controller.query import Handler, QueryApi, Reply
from moorage.errors import (
    AccessDeniedException,
    MalformedPolicyDocument,
    NoSuchEntity,
    PackedPolicyTooLarge,
    ValidationError,
)
from moorage.storage.identities import IdentityStore

CONTENT_TYPE = "text/xml"

MOST_SESSION_POLICY = 2048
MOST_POLICY_ARNS = 10
MOST_TOKEN = 8192
"""A token is a header of every request, and a request's head has its limit too."""

_CHAINED_SECONDS = 3600
_ROOT_SECONDS = 3600
_SESSION_SECONDS = 43200

Members = Mapping[str, Any]
Output = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    requester: Requester
    time: datetime
    store: IdentityStore
    permissions: Permissions
    sealer: Sealer


async def get_caller_identity(call: Call, members: Members) -> Output:
    """Allowed to everyone, as on AWS."""
    requester = call.requester
    return {
        "UserId": requester.user_id,
        "Account": requester.account_id,
        "Arn": requester.principal_arn,
    }


async def get_access_key_info(call: Call, members: Members) -> Output:
    key_id = members["AccessKeyId"]
    await call.permissions.check(call.requester, "sts:GetAccessKeyInfo", "*")
    try:
        return {"Account": (await call.store.access_key(key_id)).account_id}
    except NoSuchEntity:
        raise ValidationError(f"The access key {key_id} is not one that this server knows.") from None


async def get_session_token(call: Call, members: Members) -> Output:
    requester = call.requester
    _refuse(members, "SerialNumber", "TokenCode")
    if requester.is_session:
        raise AccessDeniedException("Cannot call GetSessionToken with session credentials")
    seconds = members.get("DurationSeconds", _SESSION_SECONDS)
    credentials = sessions.issue(
        call.sealer,
        account_id=requester.account_id,
        principal_arn=requester.principal_arn,
        user_id=requester.user_id,
        identity_arn=requester.principal_arn,
        duration_seconds=min(seconds, _ROOT_SECONDS) if requester.is_root else seconds,
        now=call.time,
    )
    return {"Credentials": _described(credentials)}


async def assume_role(call: Call, members: Members) -> Output:
    requester = call.requester
    _refuse(members, "SerialNumber", "TokenCode", "SourceIdentity", "TransitiveTagKeys", "ProvidedContexts")
    tags = _tags(members)
    role = await _permitted_role(call, members, tags)
    seconds = members.get("DurationSeconds", min(_CHAINED_SECONDS, role.max_session_seconds))
    _check_duration(requester, role, seconds)
    session_policy, policy_arns = await _session_policies(call, role, members)
    name = members["RoleSessionName"]
    user_id, arn = f"{role.identity_id}:{name}", assumed_role_arn(role, name)
    credentials = sessions.issue(
        call.sealer,
        account_id=role.account_id,
        principal_arn=arn,
        user_id=user_id,
        identity_arn=role.arn,
        duration_seconds=seconds,
        now=call.time,
        session_policy=session_policy,
        session_policy_arns=policy_arns,
        tags=tags,
    )
    size = len(credentials.session_token)
    if size > MOST_TOKEN:
        raise PackedPolicyTooLarge(f"Packed size of the session token exceeds {MOST_TOKEN} characters")
    limited = session_policy or policy_arns or tags
    return {
        "Credentials": _described(credentials),
        "AssumedRoleUser": {"AssumedRoleId": user_id, "Arn": arn},
        "PackedPolicySize": 100 * size // MOST_TOKEN if limited else None,
    }


async def _permitted_role(call: Call, members: Members, tags: Mapping[str, str]) -> Role:
    """The role, which trusts the requester; one that is not there is refused in the same words."""
    arn = members["RoleArn"]
    requester = call.requester
    role = await _find_role(call.store, arn)
    if role is None:
        raise AccessDeniedException(
            f"User: {requester.principal_arn} is not authorized to perform: sts:AssumeRole on resource: {arn}"
        )
    context: dict[str, str | tuple[str, ...]] = {"sts:RoleSessionName": members["RoleSessionName"]}
    if "ExternalId" in members:
        context["sts:ExternalId"] = members["ExternalId"]
    context |= {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    context |= {f"aws:ResourceTag/{key}": value for key, value in role.tags.items()}
    if tags:
        context["aws:TagKeys"] = tuple(tags)
    trust = compile_policy(role.trust_policy, name="the trust policy", kind=PolicyKind.TRUST)
    for action in ("sts:AssumeRole", "sts:TagSession") if tags else ("sts:AssumeRole",):
        await call.permissions.check(
            requester,
            action,
            arn,
            context=context,
            resource_policy=trust,
            resource_account_id=role.account_id,
        )
    return role


async def _find_role(store: IdentityStore, arn: str) -> Role | None:
    parts = arn.split(":", 5)
    if len(parts) != 6 or parts[:4] != ["arn", "aws", "iam", ""] or not parts[5].startswith("role/"):
        raise ValidationError(f"{arn} is invalid")
    try:
        role = await store.get(Role, parts[4], arn.rpartition("/")[2])
    except NoSuchEntity:
        return None
    return role if role.arn == arn else None


def _check_duration(requester: Requester, role: Role, seconds: int) -> None:
    if requester.is_role and seconds > _CHAINED_SECONDS:
        raise ValidationError(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining"
        )
    if seconds > role.max_session_seconds:
        raise ValidationError(
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
        )


async def _session_policies(call: Call, role: Role, members: Members) -> tuple[str | None, list[str]]:
    """What limits the session: a document, and ARNs of policies of the role's account or of AWS."""
    document = members.get("Policy")
    if document is not None:
        if len(document) > MOST_SESSION_POLICY:
            raise PackedPolicyTooLarge(f"The session policy exceeds {MOST_SESSION_POLICY} characters")
        try:
            policy = compile_policy(document, name="session policy", kind=PolicyKind.IDENTITY)
            check_condition_keys(policy, document)
        except PolicyError as error:
            raise MalformedPolicyDocument(str(error)) from error
    arns = [each["arn"] for each in members.get("PolicyArns", ()) if "arn" in each]
    if len(arns) > MOST_POLICY_ARNS:
        raise ValidationError(f"A session has at most {MOST_POLICY_ARNS} policies given by ARN.")
    for arn in arns:
        try:
            await call.store.policy(role.account_id, arn)
        except NoSuchEntity as error:
            raise ValidationError(error.message) from None
    return document, arns


def _tags(members: Members) -> dict[str, str]:
    given = members.get("Tags", ())
    tags = {tag["Key"]: tag["Value"] for tag in given}
    if len({key.lower() for key in tags}) < len(given):
        raise ValidationError("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
    return tags


def _refuse(members: Members, *names: str) -> None:
    """What would make a request mean less than it says if it were ignored."""
    for name in names:
        if name in members:
            raise ValidationError(f"This server does not have {name}.")


def _described(credentials: sessions.TemporaryCredentials) -> Output:
    return {
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key,
        "SessionToken": credentials.session_token,
        "Expiration": credentials.expiration,
    }


OPERATIONS: Mapping[str, Handler[Call]] = {
    "AssumeRole": assume_role,
    "GetSessionToken": get_session_token,
    "GetCallerIdentity": get_caller_identity,
    "GetAccessKeyInfo": get_access_key_info,
}


class Sts:
    def __init__(
        self,
        store: IdentityStore,
        sealer: Sealer,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._permissions = Permissions(store)
        self._clock = clock
        self._api: QueryApi[Call] = QueryApi("sts", OPERATIONS)

    async def answer(self, body: bytes, requester: Requester, request_id: str) -> Reply:
        def make_call(_: str) -> Call:
            return Call(
                requester=requester,
                time=self._clock(),
                store=self._store,
                permissions=self._permissions,
                sealer=self._sealer,
            )

        return await self._api.answer(body, make_call, request_id)
