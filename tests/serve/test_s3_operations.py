"""Every operation of S3 that botocore knows, at a real server: it does exactly its own thing, or nothing at all.

Before and after each, everything that the S3 keeps is read from the disk: buckets, objects, metadata, tags, uploads.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import urllib3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from moorage.gateway.s3.operations import OPERATIONS
from tests.gateway.s3.sent import client, least_members
from tests.serve.test_iam import can, with_key
from tests.servers import MoorageServer, eventually

S3 = client()
MODEL = S3.meta.service_model
METHODS = {api: method for method, api in S3.meta.method_to_api_mapping.items()}
OF_OTHER_HOSTS = {"CreateSession", "ListDirectoryBuckets", "WriteGetObjectResponse"}
"""Of directory buckets and access points, which have host names of their own on AWS."""
ALL = sorted(set(MODEL.operation_names) - OF_OTHER_HOSTS)

KEY, SOURCE = "a key", "from here"

CHANGES: Mapping[str, str] = {
    "AbortMultipartUpload": r"(gone|new|xattr) B/\.sgwtmp/multipart.*",
    "CompleteMultipartUpload": r"((gone|new|content|xattr) B/\.sgwtmp.*|(content|xattr) B/a key.*)",
    "CopyObject": r"(content|xattr) B/a key.*",
    "CreateBucket": r"(new|xattr) new-B.*",
    "CreateMultipartUpload": r"(new|xattr) B/\.sgwtmp/multipart.*",
    "DeleteBucket": r"gone empty-B.*",
    "DeleteBucketTagging": r"xattr B .*",
    "DeleteObject": r"gone B/a key.*",
    "DeleteObjectTagging": r"xattr B/a key .*",
    "DeleteObjects": r"gone B/a key.*",
    "PutBucketTagging": r"xattr B .*",
    "PutBucketVersioning": r"xattr B .*",
    "PutObject": r"(content|xattr) B/a key.*",
    "PutObjectTagging": r"xattr B/a key .*",
    "UploadPart": r"(new|content|xattr) B/\.sgwtmp/multipart.*",
    "UploadPartCopy": r"(new|content|xattr) B/\.sgwtmp/multipart.*",
}
"""What each operation may change, as `differences` tells it; `B` is the bucket. All others change nothing."""
READS = set(OPERATIONS) - set(CHANGES)
MUST_CHANGE = set(CHANGES)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Place"]:
    server = MoorageServer(tmp_path_factory.mktemp("s3-operations") / "data").start()
    yield Place(server)
    server.ensure_stopped()


class Place:
    """A server, and the users that try the operations."""

    def __init__(self, server: MoorageServer) -> None:
        self.server = server
        self.root = server.client("s3")
        self.users = 0
        self.cases = 0

    def user(self, statements: list[Mapping[str, Any]]) -> Any:
        """The S3 client of a user with these permissions."""
        iam = self.server.client("iam")
        self.users += 1
        name = f"user-{self.users}"
        iam.create_user(UserName=name)
        document = {"Version": "2012-10-17", "Statement": statements}
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(document))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        sts, s3 = (
            with_key(self.server, service, key["AccessKeyId"], key["SecretAccessKey"])
            for service in ("sts", "s3")
        )
        eventually(lambda: can(sts.get_caller_identity))
        return s3

    def members(self, operation: str) -> dict[str, Any]:
        """Buckets and objects of a case of its own, and what to call the operation with."""
        self.cases += 1
        bucket = f"case-{self.cases}"
        s3 = self.root
        s3.create_bucket(Bucket=bucket)
        s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "of", "Value": "bucket"}]})
        for key in (KEY, SOURCE):
            s3.put_object(
                Bucket=bucket,
                Key=key,
                Body=f"what {key} holds".encode(),
                Metadata={"a": "1"},
                Tagging="of=object",
                ContentType="text/x",
            )
        upload = s3.create_multipart_upload(Bucket=bucket, Key=KEY)["UploadId"]
        part = s3.upload_part(Bucket=bucket, Key=KEY, UploadId=upload, PartNumber=1, Body=b"part")
        named: dict[str, Any] = {
            "Bucket": bucket,
            "Key": KEY,
            "UploadId": upload,
            **({"PartNumber": 2} if operation.startswith("UploadPart") else {}),
            "CopySource": {"Bucket": bucket, "Key": SOURCE},
        }
        match operation:
            case "CreateBucket":
                named["Bucket"] = f"new-{bucket}"
            case "DeleteBucket":
                named["Bucket"] = f"empty-{bucket}"
                s3.create_bucket(Bucket=named["Bucket"])
            case "CompleteMultipartUpload":
                named["MultipartUpload"] = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
            case "PutBucketPolicy":
                named["Policy"] = json.dumps(policy(bucket))
            case "GetBucketPolicy" | "GetBucketPolicyStatus" | "DeleteBucketPolicy":
                s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy(bucket)))
            case "PutBucketVersioning":
                named["VersioningConfiguration"] = {"Status": "Enabled"}
            case "PutObject":
                named["Body"] = b"new"
            case "DeleteObjects":
                named["Delete"] = {"Objects": [{"Key": KEY}]}
            case "GetObjectAttributes":
                named["ObjectAttributes"] = ["ETag", "ObjectSize"]
        return least_members(MODEL.operation_model(operation).input_shape, named)

    def try_it(self, s3: Any, operation: str, members: Mapping[str, Any]) -> tuple[str, list[str]]:
        """The error code of its answer, or nothing; and what is different on the disk then."""
        before = snapshot(self.server.data_dir)
        code = ""
        try:
            reply = getattr(s3, METHODS[operation])(**members)
            if "Body" in reply:
                reply["Body"].read()
            if reply.get("Errors"):
                code = reply["Errors"][0]["Code"]
        except ClientError as error:
            code = error.response["Error"]["Code"]
        found = differences(before, snapshot(self.server.data_dir))
        bucket = f"case-{self.cases}"
        return code, [line.replace(bucket, "B") for line in found]


def policy(bucket: str) -> Mapping[str, Any]:
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": "arn:aws:iam::000000000000:root"},
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


Snapshot = Mapping[str, tuple[str, Mapping[str, bytes]]]


def snapshot(data_dir: Path) -> Snapshot:
    """Everything below the directories of the S3: the content's hash and the extended attributes."""
    found = {}
    for part in ("s3", "s3-versions", "s3-metadata"):
        root = data_dir / part
        for path in root.rglob("*"):
            if ".vgwlocks" in path.parts or path.name == ".sgwtmp":
                continue
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "directory"
            attributes = {name: os.getxattr(path, name) for name in os.listxattr(path)}
            found[str(path.relative_to(root))] = content, attributes
    return found


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    lines = [f"gone {path}" for path in before.keys() - after.keys()]
    lines += [f"new {path}" for path in after.keys() - before.keys()]
    for path in before.keys() & after.keys():
        if before[path][0] != after[path][0]:
            lines.append(f"content {path}")
        old, new = before[path][1], after[path][1]
        lines += [
            f"xattr {path} {name}" for name in old.keys() | new.keys() if old.get(name) != new.get(name)
        ]
    return sorted(lines)


def check_changes(operation: str, found: list[str]) -> None:
    allowed = CHANGES.get(operation)
    assert bool(found) == (operation in MUST_CHANGE), found
    for line in found:
        assert allowed is not None
        assert re.fullmatch(allowed, line), f"{operation} changed {line}"


@pytest.mark.parametrize("operation", [each for each in ALL if each not in OPERATIONS])
def test_an_operation_that_is_not_there_changes_nothing(place: Place, operation: str) -> None:
    members = place.members(operation)
    assert place.try_it(place.root, operation, members) == ("NotImplemented", [])


@pytest.mark.parametrize("operation", [each for each in ALL if each in OPERATIONS])
def test_an_operation_does_its_own_thing(place: Place, operation: str) -> None:
    code, found = place.try_it(place.root, operation, place.members(operation))
    assert code == ""
    check_changes(operation, found)


def test_tags_of_a_bucket_are_tags(place: Place) -> None:
    members = place.members("GetBucketTagging")
    for body in (b"<VersioningConfiguration/>", b"<Tagging/>", b"not XML"):
        key = place.server.key
        request = AWSRequest("PUT", f"{place.server.url}/{members['Bucket']}?tagging", data=body)
        credentials = Credentials(key.access_key_id, key.secret_access_key)
        S3SigV4Auth(credentials, "s3", "us-east-1").add_auth(request)
        headers = dict(request.headers.items())
        reply = urllib3.PoolManager().request("PUT", str(request.url), body=body, headers=headers)
        assert (reply.status, b"<Code>MalformedXML</Code>" in reply.data) == (400, True)
    assert place.root.get_bucket_tagging(**members)["TagSet"] == [{"Key": "of", "Value": "bucket"}]


def actions(operation: str) -> list[str]:
    also = {
        "CopyObject": ["s3:GetObject", "s3:GetObjectTagging", "s3:PutObjectTagging"],
        "UploadPartCopy": ["s3:GetObject"],
        "GetObjectAttributes": ["s3:GetObject"],
    }
    return [OPERATIONS[operation].action, *also.get(operation, [])]


@pytest.mark.parametrize("operation", [each for each in ALL if each in OPERATIONS])
def test_its_own_permission_is_all_that_it_needs(place: Place, operation: str) -> None:
    user = place.user([{"Effect": "Allow", "Action": actions(operation), "Resource": "*"}])
    code, found = place.try_it(user, operation, place.members(operation))
    assert code == ""
    check_changes(operation, found)


@pytest.mark.parametrize("operation", [each for each in ALL if each in OPERATIONS])
def test_without_its_own_permission_nothing_happens(place: Place, operation: str) -> None:
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    for action in actions(operation):
        user = place.user([everything, {"Effect": "Deny", "Action": action, "Resource": "*"}])
        code, found = place.try_it(user, operation, place.members(operation))
        assert code in ("AccessDenied", "403")  # HEAD has no body to tell it in
        assert found == []
