"""What a role's trust policy must name, beyond the grammar: principals and actions that exist.

IAM refuses others when the policy is saved ("Troubleshoot IAM policies", "Invalid principal in policy"). Policies
that were stored by an earlier version are not looked at again.
"""

from typing import Final

from moorage.auth.policy import PolicyKind
from moorage.auth.policy_documents import Statement
from moorage.controller.iam.base import check_policy, check_size
from moorage.controller.principals import missing_principal
from moorage.errors import MalformedPolicyDocument
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


async def check_trust_policy(store: IdentityStore, document: str) -> None:
    """Raises `MalformedPolicyDocument`, or `LimitExceeded` for one that is too long."""
    policy = check_policy(document, PolicyKind.TRUST)
    check_size("ACLSizePerRole", MOST_TRUST_POLICY, document)
    for statement in policy.statements:
        _check_actions(statement)
        if statement.principals is not None:
            missing = await missing_principal(store, statement.principals)
            if missing is not None:
                kind, name = missing
                raise MalformedPolicyDocument(f'Invalid principal in policy: "{kind}":"{name}"')


def _check_actions(statement: Statement) -> None:
    patterns = statement.action_patterns
    matching = all(any(each.matches(action, {}) for action in STS_ACTIONS) for each in patterns)
    if not (matching and statement.actions <= STS_ACTIONS):
        raise MalformedPolicyDocument("AssumeRole policy may only specify STS AssumeRole actions.")
