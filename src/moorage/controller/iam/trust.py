"""What a role's trust policy must name, beyond the grammar: principals and actions that exist.

IAM refuses others when the policy is saved ("Troubleshoot IAM policies", "Invalid principal in policy"). Policies
that were stored by an earlier version are not looked at again.
"""

import re
from typing import Final

from moorage.auth.identities import Role, User
from moorage.auth.policy import PolicyKind
from moorage.auth.policy_documents import Statement
from moorage.auth.policy_principals import Principals
from moorage.controller.iam.base import check_policy, check_size
from moorage.errors import MalformedPolicyDocument, NoSuchEntity
from moorage.storage.identities import IdentityStore

MOST_TRUST_POLICY = 2048

STS_ACTIONS: Final = frozenset(
    f"sts:{name}".lower()
    for name in (
        "AssumeRole",
        "AssumeRoleWithSAML",
        "AssumeRoleWithWebIdentity",
        "AssumeRoot",
        "DecodeAuthorizationMessage",
        "GetAccessKeyInfo",
        "GetCallerIdentity",
        "GetDelegatedAccessToken",
        "GetFederationToken",
        "GetServiceBearerToken",
        "GetSessionToken",
        "GetWebIdentityToken",
        "SetContext",
        "SetSourceIdentity",
        "TagSession",
    )
)
"""In lower case, after "Actions, resources, and condition keys for AWS Security Token Service"."""

_SERVICE: Final = re.compile(r".+\.(amazonaws\.com(\.cn)?|aws\.internal|aws\.com)")
_WEB_IDENTITY_PROVIDERS: Final = frozenset(
    ("accounts.google.com", "cognito-identity.amazonaws.com", "graph.facebook.com", "www.amazon.com")
)
"""Those that need no resource of IAM ("AWS JSON policy elements: Principal", federated user principals)."""


async def check_trust_policy(store: IdentityStore, document: str) -> None:
    """Raises `MalformedPolicyDocument`, or `LimitExceeded` for one that is too long."""
    policy = check_policy(document, PolicyKind.TRUST)
    check_size("ACLSizePerRole", MOST_TRUST_POLICY, document)
    for statement in policy.statements:
        _check_actions(statement)
        if statement.principals is not None:
            await _check_principals(store, statement.principals)


def _check_actions(statement: Statement) -> None:
    patterns = statement.action_patterns
    matching = all(any(each.matches(action, {}) for action in STS_ACTIONS) for each in patterns)
    if not (matching and statement.actions <= STS_ACTIONS):
        raise MalformedPolicyDocument("AssumeRole policy may only specify STS AssumeRole actions.")


async def _check_principals(store: IdentityStore, principals: Principals) -> None:
    for account_id in sorted(principals.accounts):
        if not await _account_exists(store, account_id):
            raise _invalid("AWS", f"arn:aws:iam::{account_id}:root")
    for arn in sorted(principals.arns):
        if not await _identity_exists(store, arn):
            raise _invalid("AWS", arn)
    for service in sorted(principals.services):
        if not _SERVICE.fullmatch(service):
            raise _invalid("SERVICE", service)
    for provider in sorted(principals.federated - _WEB_IDENTITY_PROVIDERS):
        raise _invalid("FEDERATED", provider)


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


def _invalid(kind: str, name: str) -> MalformedPolicyDocument:
    return MalformedPolicyDocument(f'Invalid principal in policy: "{kind}":"{name}"')
