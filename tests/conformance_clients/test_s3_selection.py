"""Which of ceph's tests are run, and where each is counted."""

import pytest

from conformance.s3_selection import group_of


@pytest.mark.parametrize(
    ("module", "name", "marks", "source", "group"),
    [
        ("test_s3", "test_object_copy_16m", {"copy"}, "", "ordinary"),
        ("test_headers", "test_object_create_bad_md5_bad", {"auth_common"}, "", "ordinary"),
        ("test_s3", "test_object_copy_versioned_bucket", {"copy"}, "", "versions"),
        ("test_s3", "test_delete_marker_versioned", {"delete_marker"}, "", "versions"),
        (
            "test_headers",
            "test_bucket_create_bad_date_none",
            {"auth_aws2"},
            "",
            "headers of signature version 2",
        ),
        ("test_iam", "test_put_user_policy", set(), "", None),
        ("test_s3", "test_put_object_ifmatch_good", {"fails_on_aws"}, "", None),
        ("test_s3", "test_lifecycle_get", {"lifecycle"}, "", None),
        ("test_s3", "test_bucket_acl_default", set(), "", None),
        ("test_s3", "test_set_cors", set(), "", None),
        (
            "test_s3",
            "test_object_raw_get",
            set(),
            "_setup_bucket_object_acl('public-read', 'public-read')",
            None,
        ),
        ("test_s3", "test_post_object_x", set(), "client.create_bucket(ACL='public-read-write')", None),
    ],
)
def test_a_test_is_in_one_group_or_left_out(
    module: str, name: str, marks: set[str], source: str, group: str | None
) -> None:
    assert group_of(module, name, marks, source) == group
