"""The managed policies of AWS's own account that code written for SageMaker attaches, by their ARNs.

The documents are ours: they grant what the names say, of what this server has.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from moorage.auth.identities import ManagedPolicy

_SINCE = datetime(2015, 2, 6, 18, 40, tzinfo=UTC)


def _policy(policy_id: str, name: str, description: str, *statements: Mapping[str, object]) -> ManagedPolicy:
    document = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", **statement} for statement in statements],
    }
    return ManagedPolicy(
        account_id="aws",
        policy_id=policy_id,
        name=name,
        description=description,
        document=json.dumps(document, indent=2),
        created=_SINCE,
    )


_POLICIES = (
    _policy(
        "ANPAADMINISTRATORACCE",
        "AdministratorAccess",
        "Provides full access to all services and resources.",
        {"Action": "*", "Resource": "*"},
    ),
    _policy(
        "ANPAAMAZONSAGEMAKERFU",
        "AmazonSageMakerFullAccess",
        "Provides full access to SageMaker, and to the buckets and roles that it needs.",
        {"Action": ["sagemaker:*", "iam:GetRole", "iam:ListRoles"], "Resource": "*"},
        {
            "Action": "iam:PassRole",
            "Resource": "arn:aws:iam::*:role/*",
            "Condition": {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
        },
        {
            "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
            "Resource": [f"arn:aws:s3:::*{word}*" for word in ("SageMaker", "Sagemaker", "sagemaker")],
        },
        {
            "Action": ["s3:CreateBucket", "s3:GetBucketLocation", "s3:ListBucket", "s3:ListAllMyBuckets"],
            "Resource": "*",
        },
    ),
    _policy(
        "ANPAAMAZONSAGEMAKERRE",
        "AmazonSageMakerReadOnly",
        "Provides read only access to SageMaker.",
        {"Action": ["sagemaker:Describe*", "sagemaker:List*", "sagemaker:Search"], "Resource": "*"},
    ),
    _policy(
        "ANPAAMAZONSTHREEFULLA",
        "AmazonS3FullAccess",
        "Provides full access to all buckets.",
        {"Action": "s3:*", "Resource": "*"},
    ),
)

AWS_MANAGED: Mapping[str, ManagedPolicy] = {policy.arn: policy for policy in _POLICIES}
"""By ARN."""
