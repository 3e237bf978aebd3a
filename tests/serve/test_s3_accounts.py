"""Two accounts at one S3: neither reads, lists, changes or finds out about what is the other's, unless its bucket's
policy says so; and a policy decides for each key by itself."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import urllib3
from botocore.exceptions import ClientError

from tests.conformance.targets import unique
from tests.serve.test_endpoint_policies import Tenant
from tests.serve.test_iam import can, with_key
from tests.servers import ACCOUNT, MoorageServer, eventually

READ = ["s3:GetObject", "s3:GetObjectTagging"]
WRITE = ["s3:PutObject", "s3:PutObjectTagging"]
LARGE = bytes(range(256)) * 4 * 1024 * 6  # 6 MiB


@pytest.fixture(scope="module")
def alice(server: MoorageServer) -> Any:
    """The root of the server's first account."""
    return server.client("s3")


@pytest.fixture(scope="module")
def other(server: MoorageServer) -> Tenant:
    return Tenant(server, unique("bob"))


@pytest.fixture(scope="module")
def bob(other: Tenant) -> Any:
    """The root of another account."""
    return other.client("s3")


@pytest.fixture
def bucket(alice: Any) -> Iterator[str]:
    """A bucket of Alice with an object, its tags and an upload in parts."""
    name = unique("alice")
    alice.create_bucket(Bucket=name)
    alice.put_object(Bucket=name, Key="secret", Body=b"alice's", Tagging="a=b")
    yield name


@pytest.fixture
def others_bucket(bob: Any) -> str:
    name = unique("bob")
    bob.create_bucket(Bucket=name)
    return name


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    error = caught.value.response["Error"]
    return f"{error['Code']}: {error['Message']}" if error["Code"] != "403" else "403"


def allow(s3: Any, bucket: str, *statements: Mapping[str, Any]) -> None:
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **each} for each in statements]}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(document))


TRIES: Mapping[str, Callable[[Any, str, str, str], object]] = {
    # name: the call, of a client on (the bucket, a key in it, a bucket of the client's own)
    "list": lambda s3, bucket, key, own: s3.list_objects_v2(Bucket=bucket),
    "list versions": lambda s3, bucket, key, own: s3.list_object_versions(Bucket=bucket),
    "list uploads": lambda s3, bucket, key, own: s3.list_multipart_uploads(Bucket=bucket),
    "head bucket": lambda s3, bucket, key, own: s3.head_bucket(Bucket=bucket),
    "location": lambda s3, bucket, key, own: s3.get_bucket_location(Bucket=bucket),
    "bucket's tags": lambda s3, bucket, key, own: s3.get_bucket_tagging(Bucket=bucket),
    "get": lambda s3, bucket, key, own: s3.get_object(Bucket=bucket, Key=key),
    "head": lambda s3, bucket, key, own: s3.head_object(Bucket=bucket, Key=key),
    "attributes": lambda s3, bucket, key, own: s3.get_object_attributes(
        Bucket=bucket, Key=key, ObjectAttributes=["ETag"]
    ),
    "tags": lambda s3, bucket, key, own: s3.get_object_tagging(Bucket=bucket, Key=key),
    "put": lambda s3, bucket, key, own: s3.put_object(Bucket=bucket, Key=key, Body=b"bob's"),
    "put if absent": lambda s3, bucket, key, own: s3.put_object(
        Bucket=bucket, Key=key, Body=b"", IfNoneMatch="*"
    ),
    "put tags": lambda s3, bucket, key, own: s3.put_object_tagging(
        Bucket=bucket, Key=key, Tagging={"TagSet": []}
    ),
    "delete": lambda s3, bucket, key, own: s3.delete_object(Bucket=bucket, Key=key),
    "upload in parts": lambda s3, bucket, key, own: s3.create_multipart_upload(Bucket=bucket, Key=key),
    "copy from": lambda s3, bucket, key, own: s3.copy_object(
        Bucket=own, Key="stolen", CopySource={"Bucket": bucket, "Key": key}
    ),
    "copy to": lambda s3, bucket, key, own: s3.copy_object(
        Bucket=bucket, Key=key, CopySource={"Bucket": own, "Key": "mine"}
    ),
    "delete bucket": lambda s3, bucket, key, own: s3.delete_bucket(Bucket=bucket),
    "versioning": lambda s3, bucket, key, own: s3.put_bucket_versioning(
        Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
    ),
    "policy": lambda s3, bucket, key, own: allow(
        s3,
        bucket,
        {"Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"},
    ),
    "read policy": lambda s3, bucket, key, own: s3.get_bucket_policy(Bucket=bucket),
}


@pytest.mark.parametrize("attempt", TRIES)
def test_nothing_of_another_account_is_told_or_changed(
    alice: Any, bob: Any, bucket: str, others_bucket: str, attempt: str
) -> None:
    bob.put_object(Bucket=others_bucket, Key="mine", Body=b"bob's")
    before = alice.head_object(Bucket=bucket, Key="secret")
    call = TRIES[attempt]
    there = refused(lambda: call(bob, bucket, "secret", others_bucket))
    assert there.startswith(("AccessDenied", "403", "MethodNotAllowed"))
    absent = refused(lambda: call(bob, bucket, "not there", others_bucket))
    assert absent.replace("not there", "secret") == there, "the answer tells whether there is such an object"
    after = alice.head_object(Bucket=bucket, Key="secret")
    assert (after["ETag"], after["LastModified"]) == (before["ETag"], before["LastModified"])
    assert [each["Key"] for each in alice.list_objects_v2(Bucket=bucket)["Contents"]] == ["secret"]
    assert [each["Key"] for each in bob.list_objects_v2(Bucket=others_bucket)["Contents"]] == ["mine"]


def test_deletions_of_many_are_refused_too(alice: Any, bob: Any, bucket: str) -> None:
    objects = [{"Key": "secret"}, {"Key": "not there"}]
    reply = bob.delete_objects(Bucket=bucket, Delete={"Objects": objects})
    assert "Deleted" not in reply
    assert [(each["Key"], each["Code"]) for each in reply["Errors"]] == [
        ("secret", "AccessDenied"),
        ("not there", "AccessDenied"),
    ]
    assert len({each["Message"] for each in reply["Errors"]}) == 1
    assert alice.get_object(Bucket=bucket, Key="secret")["Body"].read() == b"alice's"


def test_presigned_urls_do_not_reach_further_than_their_signer(other: Tenant, bucket: str) -> None:
    for version in ("s3", "s3v4"):
        bob = other.client("s3", signature_version=version)
        url = bob.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "secret"})
        reply = urllib3.PoolManager().request("GET", url)
        assert (reply.status, b"alice's" in reply.data) == (403, False)
        form = bob.generate_presigned_post(bucket, "secret")
        reply = urllib3.PoolManager().request_encode_body(
            "POST", form["url"], fields={**form["fields"], "file": ("f", b"bob's")}
        )
        assert reply.status == 403


def test_refusals_do_not_tell_whether_there_is_a_policy(alice: Any, bob: Any, bucket: str) -> None:
    calls = (
        lambda: bob.get_object(Bucket=bucket, Key="secret"),
        lambda: bob.list_objects_v2(Bucket=bucket),
        lambda: bob.put_object_tagging(Bucket=bucket, Key="secret", Tagging={"TagSet": []}),
    )
    without = [refused(call) for call in calls]
    principal = {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
    allow(
        alice,
        bucket,
        {"Principal": principal, "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"},
    )
    assert [refused(call) for call in calls] == without


def test_lists_of_buckets_are_of_the_account(alice: Any, bob: Any, bucket: str, others_bucket: str) -> None:
    def names(s3: Any) -> set[str]:
        return {each["Name"] for each in s3.list_buckets()["Buckets"]}

    assert bucket in names(alice)
    assert others_bucket in names(bob)
    assert not names(alice) & names(bob)


def test_a_bucket_of_another_account_cannot_be_made_again(bob: Any, bucket: str) -> None:
    assert refused(lambda: bob.create_bucket(Bucket=bucket)).startswith("BucketAlreadyExists")


def test_a_policy_lets_another_account_in(
    alice: Any, other: Tenant, bob: Any, bucket: str, others_bucket: str
) -> None:
    everything = f"arn:aws:s3:::{bucket}/*"
    principal = {"AWS": other.root}
    allow(
        alice,
        bucket,
        {"Principal": principal, "Action": [*READ, *WRITE], "Resource": everything},
    )
    assert bob.get_object(Bucket=bucket, Key="secret")["Body"].read() == b"alice's"
    bob.put_object(Bucket=bucket, Key="gift", Body=LARGE)
    assert alice.get_object(Bucket=bucket, Key="gift")["Body"].read() == LARGE
    # Between buckets of the two, which no account of the S3 may do by itself.
    bob.copy_object(Bucket=others_bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "secret"})
    assert bob.get_object(Bucket=others_bucket, Key="copy")["Body"].read() == b"alice's"
    bob.copy_object(Bucket=bucket, Key="back", CopySource={"Bucket": others_bucket, "Key": "copy"})
    assert alice.get_object(Bucket=bucket, Key="back")["Body"].read() == b"alice's"
    upload = bob.create_multipart_upload(Bucket=others_bucket, Key="parts")["UploadId"]
    part = bob.upload_part_copy(
        Bucket=others_bucket,
        Key="parts",
        UploadId=upload,
        PartNumber=1,
        CopySource={"Bucket": bucket, "Key": "gift"},
        CopySourceRange=f"bytes=0-{len(LARGE) - 1}",
    )
    parts = [{"ETag": part["CopyPartResult"]["ETag"], "PartNumber": 1}]
    bob.complete_multipart_upload(
        Bucket=others_bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    assert bob.get_object(Bucket=others_bucket, Key="parts")["Body"].read() == LARGE
    assert refused(lambda: bob.list_objects_v2(Bucket=bucket)).startswith("AccessDenied")
    assert refused(lambda: bob.delete_object(Bucket=bucket, Key="gift")).startswith("AccessDenied")
    assert refused(lambda: bob.get_bucket_policy(Bucket=bucket)).startswith(
        ("AccessDenied", "MethodNotAllowed")
    )
    alice.delete_bucket_policy(Bucket=bucket)
    assert refused(lambda: bob.get_object(Bucket=bucket, Key="secret")).startswith("AccessDenied")


def test_the_expected_owner_is_compared(alice: Any, other: Tenant, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "secret"}
    assert alice.get_object(**where, ExpectedBucketOwner=ACCOUNT)["Body"].read() == b"alice's"
    denied = refused(lambda: alice.get_object(**where, ExpectedBucketOwner=other.account_id))
    assert denied.startswith("AccessDenied")


def test_a_policy_ends_with_its_bucket(alice: Any, bob: Any) -> None:
    name = unique("again")
    everything = f"arn:aws:s3:::{name}/*"
    alice.create_bucket(Bucket=name)
    allow(alice, name, {"Principal": "*", "Action": "s3:*", "Resource": everything})
    alice.delete_bucket(Bucket=name)
    alice.create_bucket(Bucket=name)
    alice.put_object(Bucket=name, Key="k", Body=b"")
    assert refused(lambda: bob.get_object(Bucket=name, Key="k")).startswith("AccessDenied")
    assert refused(lambda: alice.get_bucket_policy(Bucket=name)).startswith("NoSuchBucketPolicy")


# --- within an account ---------------------------------------------------------------------------------


def user(server: MoorageServer, *statements: Mapping[str, Any]) -> Any:
    iam = server.client("iam")
    name = unique("user")
    iam.create_user(UserName=name)
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **each} for each in statements]}
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(document))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    sts, s3 = (
        with_key(server, service, key["AccessKeyId"], key["SecretAccessKey"]) for service in ("sts", "s3")
    )
    eventually(lambda: can(sts.get_caller_identity))
    return s3


def test_each_key_of_many_is_decided_by_itself(server: MoorageServer, alice: Any, bucket: str) -> None:
    keys = ["team/1", "team/2", "protected/1", "other/1"]
    for key in keys:
        alice.put_object(Bucket=bucket, Key=key, Body=b"")
    arn = f"arn:aws:s3:::{bucket}"
    everything = {"Action": "s3:*", "Resource": [arn, f"{arn}/*"]}
    protected = {"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": f"{arn}/protected/*"}
    one, other = (
        user(server, everything, protected),
        user(server, {**everything, "Resource": f"{arn}/team/*"}),
    )

    def delete(s3: Any) -> tuple[list[str], dict[str, str]]:
        reply = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})
        deleted = sorted(each["Key"] for each in reply.get("Deleted", ()))
        return deleted, {each["Key"]: each["Code"] for each in reply.get("Errors", ())}

    assert delete(other) == (
        ["team/1", "team/2"],
        {"protected/1": "AccessDenied", "other/1": "AccessDenied"},
    )
    assert delete(one) == (["other/1", "team/1", "team/2"], {"protected/1": "AccessDenied"})
    left = [each["Key"] for each in alice.list_objects_v2(Bucket=bucket)["Contents"]]
    assert left == ["protected/1", "secret"]
    quiet = one.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": "protected/1"}, {"Key": "team/1"}], "Quiet": True}
    )
    assert "Deleted" not in quiet
    assert [each["Key"] for each in quiet["Errors"]] == ["protected/1"]
    nothing = user(server, {"Action": "s3:ListBucket", "Resource": arn})
    assert delete(nothing) == ([], dict.fromkeys(keys, "AccessDenied"))


def test_an_upload_from_a_form_is_decided_by_its_key(server: MoorageServer, alice: Any, bucket: str) -> None:
    arn = f"arn:aws:s3:::{bucket}"
    put = {"Action": "s3:PutObject"}
    team = user(server, {**put, "Resource": f"{arn}/team/*"})
    on_the_bucket = user(server, {**put, "Resource": arn})
    but_protected = user(
        server,
        {"Action": "s3:*", "Resource": [arn, f"{arn}/*"]},
        {"Effect": "Deny", **put, "Resource": f"{arn}/protected/*"},
    )
    untagged = user(
        server,
        {**put, "Resource": f"{arn}/*"},
        {"Effect": "Deny", "Action": "s3:PutObjectTagging", "Resource": f"{arn}/protected/*"},
    )
    tagging = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"

    def status(s3: Any, key: str, name: str = "f", **fields: str) -> int:
        conditions: list[Any] = [{each: value} for each, value in fields.items()]
        form = s3.generate_presigned_post(bucket, key, Fields=fields, Conditions=conditions)
        reply = urllib3.PoolManager().request_encode_body(
            "POST", form["url"], fields={**form["fields"], "file": (name, b"posted")}
        )
        assert (reply.status == 403) == (b"<Code>AccessDenied</Code>" in reply.data)
        return int(reply.status)

    assert status(team, "team/1") == status(but_protected, "team/2") == status(untagged, "team/3") == 204
    refused = [
        status(team, "other/1"),
        status(team, "team"),
        status(on_the_bucket, "team/4"),
        status(but_protected, "protected/1"),
        status(but_protected, "protected/${filename}", name="2"),
        status(team, "team/5", tagging=tagging),
        status(untagged, "protected/3", tagging=tagging),
    ]
    assert refused == [403] * len(refused)
    assert status(but_protected, "team/6", tagging=tagging) == 204
    left = [each["Key"] for each in alice.list_objects_v2(Bucket=bucket)["Contents"]]
    assert left == ["secret", "team/1", "team/2", "team/3", "team/6"]


def test_conditions_on_prefixes_hold(server: MoorageServer, alice: Any, bucket: str) -> None:
    alice.put_object(Bucket=bucket, Key="home/me/1", Body=b"")
    arn = f"arn:aws:s3:::{bucket}"
    mine = {
        "Action": "s3:ListBucket",
        "Resource": arn,
        "Condition": {"StringLike": {"s3:prefix": "home/me/*"}},
    }
    most = {**mine, "Condition": {"NumericLessThanEquals": {"s3:max-keys": "5"}}}
    denied = {
        "Effect": "Deny",
        "Action": "s3:ListBucket",
        "Resource": arn,
        "Condition": {"StringEquals": {"s3:prefix": "secret"}},
    }
    one = user(server, mine)
    found = one.list_objects_v2(Bucket=bucket, Prefix="home/me/")["Contents"]
    assert [each["Key"] for each in found] == ["home/me/1"]
    assert refused(lambda: one.list_objects_v2(Bucket=bucket)).startswith("AccessDenied")
    assert refused(lambda: one.list_objects(Bucket=bucket, Prefix="home/")).startswith("AccessDenied")
    few = user(server, most)
    few.list_objects_v2(Bucket=bucket, MaxKeys=5)
    assert refused(lambda: few.list_objects_v2(Bucket=bucket, MaxKeys=6)).startswith("AccessDenied")
    all_but = user(server, {"Action": "s3:*", "Resource": "*"}, denied)
    all_but.list_objects_v2(Bucket=bucket)
    assert refused(lambda: all_but.list_objects_v2(Bucket=bucket, Prefix="secret")).startswith("AccessDenied")


def test_conditions_on_tags_hold(server: MoorageServer, alice: Any, bucket: str) -> None:
    arn = f"arn:aws:s3:::{bucket}/*"
    for key, tag in (("public", "yes"), ("private", "no")):
        alice.put_object(Bucket=bucket, Key=key, Body=key.encode(), Tagging=f"public={tag}")
    existing = {"StringEquals": {"s3:ExistingObjectTag/public": "yes"}}
    reader = user(server, {"Action": "s3:GetObject", "Resource": arn, "Condition": existing})
    assert reader.get_object(Bucket=bucket, Key="public")["Body"].read() == b"public"
    for key in ("private", "secret", "not there"):
        assert refused(lambda key=key: reader.get_object(Bucket=bucket, Key=key)).startswith("AccessDenied")
    alice.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    mark = alice.delete_object(Bucket=bucket, Key="secret")["VersionId"]
    versions = user(server, {"Action": "s3:GetObjectVersion", "Resource": arn, "Condition": existing})
    assert refused(lambda: versions.get_object(Bucket=bucket, Key="secret", VersionId=mark)).startswith(
        "AccessDenied"
    )
    requested = {"StringEquals": {"s3:RequestObjectTag/public": "no"}}
    writer = user(
        server,
        {
            "Action": ["s3:PutObject", "s3:PutObjectTagging"],
            "Resource": arn,
            "Condition": requested,
        },
    )
    writer.put_object(Bucket=bucket, Key="new", Body=b"", Tagging="public=no")
    assert refused(
        lambda: writer.put_object(Bucket=bucket, Key="new", Body=b"", Tagging="public=yes")
    ).startswith("AccessDenied")
    writer.put_object_tagging(
        Bucket=bucket, Key="public", Tagging={"TagSet": [{"Key": "public", "Value": "no"}]}
    )
    assert refused(lambda: reader.get_object(Bucket=bucket, Key="public")).startswith("AccessDenied")
    published = {"TagSet": [{"Key": "public", "Value": "yes"}]}
    assert refused(
        lambda: writer.put_object_tagging(Bucket=bucket, Key="private", Tagging=published)
    ).startswith("AccessDenied")


def test_tags_of_what_is_copied_count(server: MoorageServer, alice: Any, bucket: str) -> None:
    arn = f"arn:aws:s3:::{bucket}/*"
    alice.put_object(Bucket=bucket, Key="classified", Body=b"classified", Tagging="class=secret")
    alice.put_object(Bucket=bucket, Key="plain", Body=b"plain")
    upload = alice.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    where = {"Bucket": bucket, "Key": "copy"}

    def copy(s3: Any, key: str, **members: Any) -> object:
        return s3.copy_object(**where, CopySource={"Bucket": bucket, "Key": key}, **members)

    all_but = user(
        server,
        {"Action": "s3:*", "Resource": "*"},
        {
            "Effect": "Deny",
            "Action": "s3:GetObject",
            "Resource": arn,
            "Condition": {"StringEquals": {"s3:ExistingObjectTag/class": "secret"}},
        },
    )
    copy(all_but, "plain")
    assert refused(lambda: copy(all_but, "classified")).startswith("AccessDenied")
    part = {"Bucket": bucket, "Key": "parts", "UploadId": upload, "PartNumber": 1}
    source = {"Bucket": bucket, "Key": "classified"}
    assert refused(lambda: all_but.upload_part_copy(**part, CopySource=source)).startswith("AccessDenied")
    # A copy gets the tags too, unless it says otherwise: so they are read, and written.
    no_tags = user(server, {"Action": ["s3:GetObject", "s3:PutObject"], "Resource": arn})
    copy(no_tags, "plain")
    assert "s3:GetObjectTagging" in refused(lambda: copy(no_tags, "classified"))
    copy(no_tags, "classified", TaggingDirective="REPLACE")
    assert alice.get_object_tagging(**where)["TagSet"] == []
    reads_tags = user(
        server, {"Action": ["s3:GetObject", "s3:PutObject", "s3:GetObjectTagging"], "Resource": arn}
    )
    assert "s3:PutObjectTagging" in refused(lambda: copy(reads_tags, "classified"))
    copy(user(server, {"Action": "s3:*", "Resource": arn}), "classified")
    assert alice.get_object_tagging(**where)["TagSet"] == [{"Key": "class", "Value": "secret"}]


def test_who_may_not_list_is_not_told_what_is_not_there(server: MoorageServer, bucket: str) -> None:
    actions = ["s3:GetObject*", "s3:DeleteObjectTagging"]
    reader = user(server, {"Action": actions, "Resource": f"arn:aws:s3:::{bucket}/*"})
    missing = {"Bucket": bucket, "Key": "not there"}
    for call in (
        lambda: reader.get_object(**missing),
        lambda: reader.get_object_tagging(**missing),
        lambda: reader.delete_object_tagging(**missing),
        lambda: reader.get_object_attributes(**missing, ObjectAttributes=["ETag"]),
    ):
        assert refused(call).startswith("AccessDenied")
    assert refused(lambda: reader.head_object(Bucket=bucket, Key="not there")) == "403"


def test_a_copy_needs_both_permissions(server: MoorageServer, alice: Any, bucket: str) -> None:
    arn = f"arn:aws:s3:::{bucket}"
    source = {"Bucket": bucket, "Key": "secret"}
    writer = user(server, {"Action": "s3:PutObject", "Resource": f"{arn}/*"})
    reader = user(server, {"Action": "s3:GetObject", "Resource": f"{arn}/*"})
    for s3 in (writer, reader):
        call = lambda s3=s3: s3.copy_object(Bucket=bucket, Key="copy", CopySource=source)  # noqa: E731
        assert refused(call).startswith("AccessDenied")
    assert [each["Key"] for each in alice.list_objects_v2(Bucket=bucket)["Contents"]] == ["secret"]
