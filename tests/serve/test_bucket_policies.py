"""Policies of buckets, from boto3 to every gateway: who is let in, and that they end with their buckets."""

import json
import uuid
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.serve.test_audit import line_about
from tests.serve.test_audit import refused as refused_reply
from tests.serve.test_endpoint_policies import Tenant
from tests.serve.test_iam import User, allow, can, policy, refusal
from tests.servers import ACCOUNT, MoorageServer, eventually

ALLOW_S3 = policy(allow("s3:*"))


@pytest.fixture(scope="module")
def tenant(server: MoorageServer) -> Tenant:
    return Tenant(server, "tenant-of-buckets")


@pytest.fixture
def bucket(server: MoorageServer) -> str:
    """One of the first account, with objects below `a/` and `b/`."""
    name = f"bucket-{uuid.uuid4()}"
    s3 = server.client("s3")
    s3.create_bucket(Bucket=name)
    for key in ("a/1", "b/1"):
        s3.put_object(Bucket=name, Key=key, Body=key.encode())
    return name


def to(principal: str, bucket: str, *actions: str, effect: str = "Allow", **more: Any) -> str:
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    statement = {
        "Effect": effect,
        "Principal": {"AWS": principal},
        "Action": list(actions) or "s3:*",
        "Resource": resources,
        **more,
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def code(call: Callable[[], Any]) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call()
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_a_policy_is_kept_as_it_was_put(server: MoorageServer, bucket: str) -> None:
    s3 = server.client("s3")
    assert code(lambda: s3.get_bucket_policy(Bucket=bucket)) == ("NoSuchBucketPolicy", 404)
    document = to(ACCOUNT, bucket)
    s3.put_bucket_policy(Bucket=bucket, Policy=document)
    assert s3.get_bucket_policy(Bucket=bucket)["Policy"] == document
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"] == {"IsPublic": False}
    s3.put_bucket_policy(Bucket=bucket, Policy=to("*", bucket, "s3:Get*"))
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"] == {"IsPublic": True}
    s3.delete_bucket_policy(Bucket=bucket)
    assert code(lambda: s3.get_bucket_policy_status(Bucket=bucket)) == ("NoSuchBucketPolicy", 404)
    refused = to(ACCOUNT, f"{bucket}-2")
    assert code(lambda: s3.put_bucket_policy(Bucket=bucket, Policy=refused)) == ("MalformedPolicy", 400)


def test_another_account_does_what_a_policy_lets_it(
    server: MoorageServer, tenant: Tenant, bucket: str
) -> None:
    """What is allowed is so as soon as the policy has been put."""
    ours, theirs = server.client("s3"), tenant.client("s3")
    assert code(lambda: theirs.get_object(Bucket=bucket, Key="a/1")) == ("AccessDenied", 403)
    ours.put_bucket_policy(
        Bucket=bucket, Policy=to(tenant.account_id, bucket, "s3:GetObject", "s3:PutObject")
    )
    assert theirs.get_object(Bucket=bucket, Key="a/1")["Body"].read() == b"a/1"
    theirs.put_object(Bucket=bucket, Key="theirs", Body=b"x")
    assert ours.get_object(Bucket=bucket, Key="theirs")["Body"].read() == b"x"
    assert code(lambda: theirs.list_objects_v2(Bucket=bucket)) == ("AccessDenied", 403)
    assert code(lambda: theirs.delete_object(Bucket=bucket, Key="a/1")) == ("AccessDenied", 403)
    user = tenant.user("without", policy(allow("sagemaker:*")))
    assert code(lambda: user.client("s3").get_object(Bucket=bucket, Key="a/1")) == ("AccessDenied", 403)
    user.allow(ALLOW_S3)
    eventually(lambda: can(lambda: user.client("s3").get_object(Bucket=bucket, Key="a/1")))
    ours.delete_bucket_policy(Bucket=bucket)
    assert code(lambda: theirs.get_object(Bucket=bucket, Key="a/1")) == ("AccessDenied", 403)


def test_another_account_copies_what_it_may_read(server: MoorageServer, tenant: Tenant, bucket: str) -> None:
    ours, theirs = server.client("s3"), tenant.client("s3")
    own = f"theirs-{uuid.uuid4()}"
    theirs.create_bucket(Bucket=own)
    source = {"Bucket": bucket, "Key": "a/1"}
    assert code(lambda: theirs.copy_object(Bucket=own, Key="k", CopySource=source)) == ("AccessDenied", 403)
    ours.put_bucket_policy(Bucket=bucket, Policy=to(tenant.account_id, bucket, "s3:GetObject"))
    theirs.copy_object(Bucket=own, Key="k", CopySource=source)
    assert theirs.get_object(Bucket=own, Key="k")["Body"].read() == b"a/1"
    back = {"Bucket": own, "Key": "k"}
    assert code(lambda: theirs.copy_object(Bucket=bucket, Key="k", CopySource=back)) == ("AccessDenied", 403)


def test_a_policy_is_the_business_of_the_buckets_own_account(
    server: MoorageServer, tenant: Tenant, bucket: str
) -> None:
    ours, theirs = server.client("s3"), tenant.client("s3")
    everything = to(tenant.account_id, bucket)
    calls = (
        lambda: theirs.put_bucket_policy(Bucket=bucket, Policy=everything),
        lambda: theirs.get_bucket_policy(Bucket=bucket),
        lambda: theirs.delete_bucket_policy(Bucket=bucket),
    )
    for call in (*calls, lambda: theirs.delete_bucket(Bucket=bucket)):
        assert code(call) == ("AccessDenied", 403)
    ours.put_bucket_policy(Bucket=bucket, Policy=everything)
    for call in calls:
        assert code(call) == ("MethodNotAllowed", 405)
    assert ours.get_bucket_policy(Bucket=bucket)["Policy"] == everything


def test_a_policy_lets_in_and_keeps_out_within_the_account(server: MoorageServer, bucket: str) -> None:
    ours, user = server.client("s3"), User(server, f"user-{bucket}", policy(allow("sagemaker:*")))
    theirs = user.client("s3")
    assert code(lambda: theirs.get_object(Bucket=bucket, Key="a/1")) == ("AccessDenied", 403)
    arn = f"arn:aws:iam::{ACCOUNT}:user/user-{bucket}"
    ours.put_bucket_policy(Bucket=bucket, Policy=to(arn, bucket, "s3:GetObject"))
    assert theirs.get_object(Bucket=bucket, Key="a/1")["Body"].read() == b"a/1"
    ours.put_bucket_policy(Bucket=bucket, Policy=to("*", bucket, "s3:*", effect="Deny"))
    for client in (ours, theirs):
        assert code(lambda client=client: client.get_object(Bucket=bucket, Key="a/1")) == (
            "AccessDenied",
            403,
        )  # type: ignore[misc]
    assert code(lambda: ours.delete_bucket(Bucket=bucket)) == ("AccessDenied", 403)
    ours.delete_bucket_policy(Bucket=bucket)
    assert can(lambda: ours.get_object(Bucket=bucket, Key="a/1")), (
        "the root is never locked out of the policy"
    )


def test_conditions_of_a_policy_see_the_request(server: MoorageServer, tenant: Tenant, bucket: str) -> None:
    theirs = tenant.client("s3")
    condition = {"StringLike": {"s3:prefix": "a/*"}}
    document = to(tenant.account_id, bucket, "s3:ListBucket", Condition=condition)
    server.client("s3").put_bucket_policy(Bucket=bucket, Policy=document)
    listed = theirs.list_objects_v2(Bucket=bucket, Prefix="a/")["Contents"]
    assert [each["Key"] for each in listed] == ["a/1"]
    for prefix in ({"Prefix": "b/"}, {"Prefix": ""}, {}):
        refused = code(lambda prefix=prefix: theirs.list_objects_v2(Bucket=bucket, **prefix))  # type: ignore[misc]
        assert refused == ("AccessDenied", 403)


def test_a_policy_for_everyone_lets_in_nobody_without_a_signature(server: MoorageServer, bucket: str) -> None:
    server.client("s3").put_bucket_policy(Bucket=bucket, Policy=to("*", bucket))
    anonymous = boto3.client(
        "s3",
        endpoint_url=server.url,
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1}),
    )
    assert code(lambda: anonymous.get_object(Bucket=bucket, Key="a/1")) == ("AccessDenied", 403)


def test_a_bucket_made_anew_has_no_policy(server: MoorageServer, tenant: Tenant, bucket: str) -> None:
    ours, theirs = server.client("s3"), tenant.client("s3")
    ours.put_bucket_policy(Bucket=bucket, Policy=to(tenant.account_id, bucket))
    assert code(lambda: ours.delete_bucket(Bucket=bucket)) == ("BucketNotEmpty", 409)
    assert can(lambda: theirs.get_object(Bucket=bucket, Key="a/1"))
    for key in ("a/1", "b/1"):
        ours.delete_object(Bucket=bucket, Key=key)
    ours.delete_bucket(Bucket=bucket)
    ours.create_bucket(Bucket=bucket)
    ours.put_object(Bucket=bucket, Key="a/1", Body=b"new")
    assert code(lambda: theirs.get_object(Bucket=bucket, Key="a/1")) == ("AccessDenied", 403)
    assert code(lambda: ours.get_bucket_policy(Bucket=bucket)) == ("NoSuchBucketPolicy", 404)


def test_a_client_does_not_reach_the_controllers_routes(
    server: MoorageServer, tenant: Tenant, bucket: str
) -> None:
    """They are there for the gateway: `/s3/buckets/…` is a bucket named s3 to S3, and nothing to other services."""
    theirs = tenant.client("sagemaker")
    theirs.meta.events.register("before-sign", lambda request, **_: setattr(request, "method", "DELETE"))
    theirs.meta.events.register(
        "before-sign", lambda request, **_: setattr(request, "url", f"{server.url}/s3/buckets/{bucket}")
    )
    assert refusal(theirs.list_models)[0] == "UnknownOperationException"
    assert can(lambda: server.client("s3").head_bucket(Bucket=bucket))


def test_changes_are_in_the_audit_log(server: MoorageServer, bucket: str) -> None:
    s3 = server.client("s3")
    done = s3.put_bucket_policy(Bucket=bucket, Policy=to(ACCOUNT, bucket))
    refused = refused_reply(lambda: s3.delete_bucket(Bucket=bucket))
    for reply, name, error, outcome in (
        (done, "PutBucketPolicy", None, "allowed"),
        (refused, "DeleteBucket", "BucketNotEmpty", "failed"),
    ):
        line = line_about(server, reply)
        assert (line["eventSource"], line["eventName"]) == ("s3.amazonaws.com", name)
        assert (line["resource"], line["outcome"]) == (f"arn:aws:s3:::{bucket}", outcome)
        assert line.get("errorCode") == error


def test_policies_outlive_a_restart(new_server: Callable[..., MoorageServer]) -> None:
    server = new_server()
    tenant = Tenant(server, "tenant")
    s3 = server.client("s3")
    s3.create_bucket(Bucket="kept")
    s3.put_object(Bucket="kept", Key="k", Body=b"x")
    s3.create_bucket(Bucket="gone")
    for bucket in ("kept", "gone"):
        s3.put_bucket_policy(Bucket=bucket, Policy=to(tenant.account_id, bucket))
    server.stop()
    (server.data_dir / "s3" / "gone").rmdir()
    server.start()
    eventually(lambda: "the policy of bucket gone is removed" in server.log)
    eventually(lambda: can(lambda: tenant.client("s3").get_object(Bucket="kept", Key="k")))
    assert server.client("s3").get_bucket_policy(Bucket="kept")["Policy"] == to(tenant.account_id, "kept")
