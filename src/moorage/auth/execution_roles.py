"""What the platform may do for a model: the rules of execution roles, without any I/O.

A role that exists bounds what is done in its name, if its trust policy lets SageMaker assume it. A role that does not
exist stands for the account that names it: code that was written for AWS names roles of an AWS account, which nobody
has made here. Its session has the account's permissions on what the account owns, within `_ON_BEHALF`, and none on
what belongs to other accounts. So does a model that names no role.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from moorage.auth import sessions
from moorage.auth.identities import Role, assumed_role_arn
from moorage.auth.policy import Caller, CallerKind, PolicyKind, Request, compile_policy, evaluate
from moorage.auth.sealing import Sealer
from moorage.auth.sessions import TemporaryCredentials

SERVICE: Final = "sagemaker.amazonaws.com"
SESSION_NAME: Final = "SageMaker"

WHOLE_ACCOUNT: Final = compile_policy(
    {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}},
    name="the account",
    kind=PolicyKind.IDENTITY,
)
"""The identity-based policy of a role that does not exist. Its session policy limits it."""

_ON_BEHALF: Final = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Action": ["s3:*", "sagemaker:*", "logs:*", "cloudwatch:*", "sts:GetCallerIdentity"],
            "Resource": "*",
        },
    },
    separators=(",", ":"),
)
"""The session policy of a role that does not exist: what a model has to do with, and nothing of IAM's, of this
server's own, or of other roles (iam:PassRole, sts:AssumeRole)."""

ON_BEHALF_OF_ACCOUNT: Final = compile_policy(_ON_BEHALF, name="session policy", kind=PolicyKind.IDENTITY)


class CannotAssumeRole(Exception):
    """The platform must not act as a role; the text is AWS's."""


def cannot_assume(role_arn: str) -> CannotAssumeRole:
    """The role's trust policy does not let SageMaker assume it, or there is no such role and there has to be."""
    return CannotAssumeRole(
        f"Could not assume role {role_arn}. Please ensure that the role exists and allows principal "
        f"'{SERVICE}' to assume the role."
    )


def cross_account() -> CannotAssumeRole:
    return CannotAssumeRole("Cross-account pass role is not allowed.")


def trusts_platform(role: Role, *, source_arn: str) -> bool:
    """Whether SageMaker may assume the role for the resource that it does so for, a model or an endpoint."""
    context: Mapping[str, str] = {"aws:SourceAccount": role.account_id, "aws:SourceArn": source_arn}
    platform = Caller(arn=SERVICE, account_id="", kind=CallerKind.SERVICE, user_id=SERVICE)
    decision = evaluate(
        Request("sts:AssumeRole", role.arn, platform, context),
        identity=(),
        resource=compile_policy(role.trust_policy, name="the trust policy", kind=PolicyKind.TRUST),
        resource_account_id=role.account_id,
    )
    return decision.allowed


def issue_for_role(sealer: Sealer, role: Role, *, seconds: int, now: datetime) -> TemporaryCredentials:
    """Credentials of a role that exists."""
    return sessions.issue(
        sealer,
        account_id=role.account_id,
        principal_arn=assumed_role_arn(role, SESSION_NAME),
        user_id=f"{role.identity_id}:{SESSION_NAME}",
        identity_arn=role.arn,
        duration_seconds=seconds,
        now=now,
    )


def issue_for_account(
    sealer: Sealer, account_id: str, role_arn: str | None, *, seconds: int, now: datetime
) -> TemporaryCredentials:
    """Credentials of a role that does not exist, or of a model without one, in the account that names it."""
    return sessions.issue(
        sealer,
        account_id=account_id,
        principal_arn=stand_in_arn(account_id, role_arn),
        user_id=f"{account_id}:{SESSION_NAME}",
        identity_arn=root_arn(account_id),
        duration_seconds=seconds,
        now=now,
        session_policy=_ON_BEHALF,
    )


def stand_in_arn(account_id: str, role_arn: str | None) -> str:
    name = (role_arn or "").rpartition(":")[2].removeprefix("role").rpartition("/")[2]
    return f"arn:aws:sts::{account_id}:assumed-role/{name or SESSION_NAME}/{SESSION_NAME}"


def root_arn(account_id: str) -> str:
    return f"arn:aws:iam::{account_id}:root"
