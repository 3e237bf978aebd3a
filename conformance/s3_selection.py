"""Which tests of ceph/s3-tests are about what this S3 has, and in which group each is counted: a plugin of pytest.

It runs in the environment of s3-tests, so it uses nothing but pytest and the standard library. The rule is over names
and marks alone, so that it holds for other releases of s3-tests as well.
"""

import inspect
import json
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

REPORT_VARIABLE = "S3_TESTS_REPORT"
"""Names the file that gets a line of JSON for each test that has run."""

_MODULES = ("test_s3", "test_headers")

_OTHER_FEATURES = frozenset(
    {
        *("lifecycle", "lifecycle_expiration", "lifecycle_transition", "cloud_transition", "cloud_restore"),
        *("encryption", "bucket_encryption", "sse_s3", "object_lock", "object_ownership", "storage_class"),
        *("bucket_logging", "bucket_logging_cleanup", "target_by_bucket", "s3website", "sns", "s3select"),
        *("bucket_policy", "iam_account", "iam_user", "iam_role", "iam_tenant", "iam_cross_account"),
    }
)
"""Marks of features that are left out: they are not here, or Moorage's own tests have them (policies, accounts)."""

_NOT_AWS = frozenset({"fails_on_aws", "appendobject"})
"""Marks of tests that ask for what S3 itself does not do."""

_OTHER_NAMES = re.compile(
    r"(?<!with)_acl|_grant|_anon|public|access_bucket|cors|_lock_|encrypt|_sse_|_enc$|_enc_|_kms|lifecycle|logging|"
    r"website|torrent|_policy_status|_bucket_policy|policy_prefix|_with_policy|_ownership|tenant|unordered|usage"
)
"""Names of tests of the same features that have no mark: ACL grants, anonymous access, CORS, and so on."""

_OTHER_SOURCE = re.compile(
    r"\bACL=|public-read|_acl\(|AccessControl|get_unauthenticated_client|_raw_get_x_amz_expires_not_expired\(c"
)
"""Sources of tests that set an ACL first, most of them to make something public."""

_VERSIONS = re.compile(r"version|delete_marker")
_SIGNATURE_V2 = "auth_aws2"


def group_of(module: str, name: str, marks: Collection[str], source: str) -> str | None:
    """`ordinary`, `versions`, `headers of signature version 2`, or None if the test is left out."""
    if module not in _MODULES or not _OTHER_FEATURES.isdisjoint(marks) or not _NOT_AWS.isdisjoint(marks):
        return None
    if _OTHER_NAMES.search(name) or _OTHER_SOURCE.search(source):
        return None
    if _SIGNATURE_V2 in marks:
        return "headers of signature version 2"
    return "versions" if _VERSIONS.search(name) else "ordinary"


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    kept, left = [], []
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        module = item.module.__name__.rpartition(".")[2]
        item.group = group_of(module, item.originalname, marks, inspect.getsource(item.function))
        (left if item.group is None else kept).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left)


def pytest_runtest_makereport(item: Any, call: Any) -> None:
    """Tell of a test that has run, and of one whose preparation or clean-up has failed."""
    failure = call.excinfo is not None and call.excinfo.typename != "Skipped"
    if call.when != "call" and call.excinfo is None:
        return
    outcome = "failed" if failure else "skipped" if call.excinfo is not None else "passed"
    line = {
        "test": item.name,
        "group": item.group,
        "when": call.when,
        "outcome": outcome,
        "detail": "" if call.excinfo is None else call.excinfo.exconly()[:2000],
    }
    with Path(os.environ[REPORT_VARIABLE]).open("a") as report:
        report.write(json.dumps(line) + "\n")
