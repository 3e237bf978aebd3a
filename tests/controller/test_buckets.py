"""Policies of buckets: the controller's routes over a store, beside a real embedded S3."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from sqlalchemy import insert
from starlette.applications import Starlette

from moorage.controller.buckets import bucket_routes
from moorage.storage import schema
from moorage.storage.bucket_policies import AnothersBucket, BucketPolicies, NoSuchBucket
from moorage.storage.database import Database, open_database
from moorage.storage.embedded_s3 import EmbeddedS3, EmbeddedS3Unavailable, S3Refusal
from moorage.storage.identities import IdentityStore
from tests.s3.conftest import new_s3, s3
from tests.s3.program import S3Program

from .identities import ACCOUNT, OTHER, SEALER, user

__all__ = ["new_s3", "s3"]

BUCKET = "data-of-main"
THIRD = "777788889999"


def document(*principals: str, effect: str = "Allow", **more: Any) -> str:
    statement = {
        "Effect": effect,
        "Principal": {"AWS": list(principals)},
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{BUCKET}/*",
        **more,
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


class Buckets:
    """The routes, what they work with, and what the gateways were told."""

    def __init__(self, database: Database, s3: S3Program) -> None:
        self.database = database
        self.s3 = s3
        self.identities = IdentityStore(database, SEALER)
        self.changes = 0
        self.told: list[Mapping[str, Any]] = []
        self.policies = BucketPolicies(
            database, EmbeddedS3(s3.socket, s3.accounts), on_change=self._count_change
        )
        self._app = Starlette(
            routes=bucket_routes(self.policies, self.identities, tell_gateways=self._tell_gateways)
        )

    def _count_change(self) -> None:
        self.changes += 1

    async def _tell_gateways(self) -> None:
        self.told.append(await self.policies.all())

    async def make(self, bucket: str = BUCKET, account_id: str = ACCOUNT) -> None:
        await asyncio.to_thread(self.s3.client(account_id).create_bucket, Bucket=bucket)

    async def ask(
        self,
        operation: str,
        *,
        body: str = "",
        bucket: str = BUCKET,
        caller: str = ACCOUNT,
        signed_for: str | None = None,
        **headers: str,
    ) -> tuple[int, str, bytes]:
        """Status, content type and body of the reply to what the gateway relays."""
        method, path = {
            "PutBucketPolicy": ("PUT", "/policy"),
            "GetBucketPolicy": ("GET", "/policy"),
            "DeleteBucketPolicy": ("DELETE", "/policy"),
            "GetBucketPolicyStatus": ("GET", "/policy-status"),
            "DeleteBucket": ("DELETE", ""),
        }[operation]
        sent_headers = {
            "x-moorage-operation": operation,
            "x-moorage-account-id": caller,
            "x-moorage-s3-account-id": signed_for or caller,
            "x-amzn-requestid": "request-1",
            **headers,
        }
        scope = {
            "type": "http",
            "method": method,
            "path": f"/s3/buckets/{bucket}{path}",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in sent_headers.items()],
        }
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body.encode()}

        async def send(message: Any) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        content_type = dict(sent[0]["headers"]).get(b"content-type", b"").decode()
        return sent[0]["status"], content_type, b"".join(each.get("body", b"") for each in sent[1:])

    async def refusal(self, operation: str, **request: str) -> tuple[int, str, str]:
        """Status, code and message of the error that it is answered with."""
        status, content_type, body = await self.ask(operation, **request)
        assert content_type == "application/xml"
        error = ElementTree.fromstring(body)
        assert error.tag == "Error"
        assert error.findtext("RequestId") == "request-1"
        return status, error.findtext("Code") or "", error.findtext("Message") or ""


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database in SQLite, or of what a test asks for."""
    if getattr(request, "param", "") == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite+aiosqlite:///{tmp_path / 'moorage.db'}"


on_both_databases = pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
async def buckets(url: str, s3: S3Program) -> AsyncIterator[Buckets]:
    database = await open_database(url)
    made = Buckets(database, s3)
    await made.identities.ensure_account(ACCOUNT, "main")
    await made.identities.ensure_account(OTHER, "other")
    yield made
    await database.close()


@on_both_databases
async def test_the_life_of_a_policy(buckets: Buckets) -> None:
    await buckets.make()
    no_policy = (404, "NoSuchBucketPolicy", "The bucket policy does not exist")
    for operation in ("GetBucketPolicy", "GetBucketPolicyStatus"):
        assert await buckets.refusal(operation) == no_policy
    first = json.dumps(json.loads(document(OTHER)), indent=3)
    assert await buckets.ask("PutBucketPolicy", body=first) == (204, "", b"")
    assert await buckets.ask("GetBucketPolicy") == (200, "application/json", first.encode())
    second = document("*")
    assert (await buckets.ask("PutBucketPolicy", body=second))[0] == 204
    assert (await buckets.ask("GetBucketPolicy"))[2] == second.encode()
    assert (await buckets.ask("DeleteBucketPolicy"))[0] == 204
    assert (await buckets.ask("DeleteBucketPolicy"))[0] == 204, "as often as one likes"
    assert await buckets.refusal("GetBucketPolicy") == no_policy
    assert [[each.document for each in told.values()] for told in buckets.told[:3]] == [[first], [second], []]
    assert all(each.account_id == ACCOUNT for told in buckets.told for each in told.values())
    assert buckets.changes == 3


@pytest.mark.parametrize(("principal", "is_public"), [(OTHER, b"false"), ("*", b"true")])
async def test_the_status_of_a_policy(buckets: Buckets, principal: str, is_public: bytes) -> None:
    await buckets.make()
    await buckets.ask("PutBucketPolicy", body=document(principal))
    status, content_type, body = await buckets.ask("GetBucketPolicyStatus")
    assert (status, content_type) == (200, "application/xml")
    assert b"<IsPublic>" + is_public + b"</IsPublic>" in body


@pytest.mark.parametrize(
    "operation",
    ["PutBucketPolicy", "GetBucketPolicy", "DeleteBucketPolicy", "GetBucketPolicyStatus", "DeleteBucket"],
)
async def test_a_bucket_that_is_not_there_and_one_of_another(buckets: Buckets, operation: str) -> None:
    request = {"body": document(OTHER)} if operation == "PutBucketPolicy" else {}
    missing = (404, "NoSuchBucket", "The specified bucket does not exist")
    assert await buckets.refusal(operation, **request) == missing
    await buckets.make(account_id=OTHER)
    await buckets.policies.put(OTHER, BUCKET, document(ACCOUNT))
    assert await buckets.refusal(operation, **request) == (403, "AccessDenied", "Access Denied")
    assert await buckets.policies.get(OTHER, BUCKET) == document(ACCOUNT)


async def test_who_is_let_in_by_the_policy_may_not_change_it(buckets: Buckets) -> None:
    """The gateway has decided by the bucket's policy, and would sign for its owner."""
    await buckets.make(account_id=OTHER)
    await buckets.policies.put(OTHER, BUCKET, document(ACCOUNT))
    not_allowed = (405, "MethodNotAllowed", "The specified method is not allowed against this resource.")
    for operation in ("GetBucketPolicy", "DeleteBucketPolicy"):
        assert await buckets.refusal(operation, signed_for=OTHER) == not_allowed
    assert await buckets.refusal("PutBucketPolicy", signed_for=OTHER, body=document("*")) == not_allowed
    assert (await buckets.ask("GetBucketPolicyStatus", signed_for=OTHER))[0] == 200
    assert await buckets.policies.get(OTHER, BUCKET) == document(ACCOUNT)
    assert (await buckets.ask("DeleteBucket", signed_for=OTHER))[0] == 204
    assert await buckets.policies.all() == {}


async def test_a_client_does_not_get_here_by_a_path_of_its_own(buckets: Buckets) -> None:
    await buckets.make()
    for headers in ({"x-moorage-operation": "GetBucketPolicy"}, {"x-moorage-operation": ""}):
        assert (await buckets.ask("DeleteBucket", **headers))[0] == 404
    await asyncio.to_thread(buckets.s3.client(ACCOUNT).head_bucket, Bucket=BUCKET)


@pytest.mark.parametrize(
    ("principal", "exists"),
    [
        (OTHER, True),
        (f"arn:aws:iam::{OTHER}:root", True),
        (f"arn:aws:iam::{OTHER}:user/ann", True),
        (THIRD, False),
        (f"arn:aws:iam::{OTHER}:user/bob", False),
        (f"arn:aws:iam::{OTHER}:role/ann", False),
        (f"arn:aws:sts::{OTHER}:assumed-role/app/s", False),
    ],
)
async def test_principals_must_exist(buckets: Buckets, principal: str, exists: bool) -> None:
    await buckets.make()
    await user(buckets.identities, "ann", account_id=OTHER)
    if exists:
        assert (await buckets.ask("PutBucketPolicy", body=document(principal)))[0] == 204
    else:
        refused = (400, "MalformedPolicy", "Invalid principal in policy")
        assert await buckets.refusal("PutBucketPolicy", body=document(principal)) == refused


async def test_a_malformed_policy_changes_nothing(buckets: Buckets) -> None:
    await buckets.make()
    await buckets.ask("PutBucketPolicy", body=document(OTHER))
    elsewhere = document(OTHER, Resource="arn:aws:s3:::other/*")
    for body, message in (
        ("", "Policies must be valid JSON and the first byte must be '{'"),
        (elsewhere, "Policy has invalid resource"),
        (document(OTHER, Effect="\ud800\0<"), "Invalid effect: \ufffd\ufffd<"),
        (document(OTHER, Sid="x" * 21000), "Policies must not be larger than 20480 bytes"),
    ):
        assert await buckets.refusal("PutBucketPolicy", body=body) == (400, "MalformedPolicy", message)
    assert (await buckets.ask("GetBucketPolicy"))[2].decode() == document(OTHER)


@on_both_databases
async def test_a_policy_goes_with_its_bucket(buckets: Buckets) -> None:
    client = buckets.s3.client(ACCOUNT)
    await buckets.make()
    await buckets.ask("PutBucketPolicy", body=document(OTHER))
    await asyncio.to_thread(client.put_object, Bucket=BUCKET, Key="k", Body=b"x")
    status, code, _ = await buckets.refusal("DeleteBucket")
    assert (status, code) == (409, "BucketNotEmpty")
    assert (await buckets.ask("GetBucketPolicy"))[0] == 200, "nothing was done"
    await asyncio.to_thread(client.delete_object, Bucket=BUCKET, Key="k")
    assert await buckets.ask("DeleteBucket") == (204, "", b"")
    assert buckets.told[-1] == {}
    assert await buckets.refusal("DeleteBucket") == (
        404,
        "NoSuchBucket",
        "The specified bucket does not exist",
    )
    for account_id in (ACCOUNT, OTHER):
        await buckets.make(account_id=account_id)
        assert (await buckets.refusal("GetBucketPolicy", caller=account_id))[1] == "NoSuchBucketPolicy"
        assert (await buckets.ask("DeleteBucket", caller=account_id))[0] == 204


@on_both_databases
async def test_a_policy_that_is_put_while_the_bucket_is_deleted(buckets: Buckets) -> None:
    """It came before, and went with the bucket; or after, and there was no bucket."""
    for _ in range(5):
        await buckets.make()
        await buckets.ask("PutBucketPolicy", body=document(OTHER))
        answers = await asyncio.gather(
            *(buckets.ask("PutBucketPolicy", body=document(OTHER)) for _ in range(3)),
            buckets.ask("DeleteBucket"),
            *(buckets.ask("PutBucketPolicy", body=document("*")) for _ in range(3)),
        )
        assert {status for status, _, _ in answers} <= {204, 404}
        assert await buckets.policies.all() == {}


@on_both_databases
async def test_policies_of_buckets_that_are_gone_are_removed(buckets: Buckets) -> None:
    """A crash may have left them."""
    await buckets.make()
    await buckets.make("made-anew", OTHER)
    async with buckets.database.write() as connection:
        for bucket in (BUCKET, "gone", "made-anew"):
            row = {"bucket": bucket, "account_id": ACCOUNT, "document": document(OTHER)}
            await connection.execute(insert(schema.bucket_policies).values(row))
    assert (await buckets.refusal("GetBucketPolicy", bucket="made-anew", caller=OTHER))[
        1
    ] == "NoSuchBucketPolicy"
    await buckets.policies.remove_stale()
    assert list(await buckets.policies.all()) == [BUCKET]
    assert buckets.changes == 2
    await buckets.policies.remove_stale()
    assert buckets.changes == 2


async def test_without_the_s3_nothing_is_done(buckets: Buckets) -> None:
    await buckets.make()
    await buckets.ask("PutBucketPolicy", body=document(OTHER))
    buckets.s3.stop()
    for operation in ("PutBucketPolicy", "GetBucketPolicy", "DeleteBucketPolicy", "DeleteBucket"):
        request = {"body": document("*")} if operation == "PutBucketPolicy" else {}
        status, code, _ = await buckets.refusal(operation, **request)
        assert (status, code) == (503, "ServiceUnavailable")
    with pytest.raises(EmbeddedS3Unavailable):
        await buckets.policies.remove_stale()
    buckets.s3.start()
    assert (await buckets.ask("GetBucketPolicy"))[2].decode() == document(OTHER)


async def test_the_s3_tells_who_owns_what(s3: S3Program) -> None:
    asked = EmbeddedS3(s3.socket, s3.accounts)
    for account_id, bucket in ((ACCOUNT, "one"), (OTHER, "two")):
        await asyncio.to_thread(s3.client(account_id).create_bucket, Bucket=f"bucket-{bucket}")
        assert await asked.owner_of(f"bucket-{bucket}") == account_id
    for name in ("bucket-three", "x", "No Such/../Name?acl", "ü"):
        assert await asked.owner_of(name) is None
    with pytest.raises(S3Refusal, match="AccessDenied"):
        await asked.delete_bucket(OTHER, "bucket-one")
    with pytest.raises(S3Refusal, match="NoSuchBucket"):
        await asked.delete_bucket(OTHER, "bucket-three")
    await asked.delete_bucket(ACCOUNT, "bucket-one")
    assert await asked.owner_of("bucket-one") is None


async def test_the_store_tells_a_missing_bucket_from_anothers(buckets: Buckets) -> None:
    with pytest.raises(NoSuchBucket):
        await buckets.policies.put(ACCOUNT, BUCKET, document(OTHER))
    await buckets.make(account_id=OTHER)
    with pytest.raises(AnothersBucket):
        await buckets.policies.put(ACCOUNT, BUCKET, document(OTHER))
    assert buckets.changes == 0
