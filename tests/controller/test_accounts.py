"""The private routes of accounts, over a store in SQLite."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.applications import Starlette

from moorage.controller.accounts import account_routes
from moorage.controller.permissions import Requester
from moorage.storage.identities import IdentityStore

from .identities import ACCOUNT, OTHER_ROOT, ROOT, identity_store, user


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[IdentityStore]:
    async with identity_store(tmp_path) as made:
        yield made


async def ask(
    store: IdentityStore, method: str, *, requester: Requester = ROOT, **query: str
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of the reply to a request, as the gateway would relay it."""
    scope = {
        "type": "http",
        "method": method,
        "path": "/_moorage/accounts",
        "query_string": urlencode(query).encode(),
        "headers": [
            (b"x-moorage-account-id", requester.account_id.encode()),
            (b"x-moorage-principal-arn", requester.principal_arn.encode()),
            (b"x-moorage-user-id", requester.user_id.encode()),
            (b"x-moorage-source-ip", b"127.0.0.1"),
            (b"x-moorage-secure", b"false"),
            (b"x-moorage-region", b"us-east-1"),
        ],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    await Starlette(routes=account_routes(store, first_account_id=ACCOUNT))(scope, receive, send)
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:]))


async def test_an_account_is_made_with_a_key_of_its_root(store: IdentityStore) -> None:
    status, made = await ask(store, "POST", name="Research & more")
    assert status == 200
    told = (await store.snapshot())["identities"][made["Account"]["Id"]]
    assert told["access_keys"] == {made["AccessKey"]["AccessKeyId"]: made["AccessKey"]["SecretAccessKey"]}
    assert told["arn"] == f"arn:aws:iam::{made['Account']['Id']}:root"
    status, listed = await ask(store, "GET")
    assert (status, listed["Accounts"][-1]) == (200, made["Account"])
    assert [each["Name"] for each in listed["Accounts"]] == ["main", "other", "Research & more"]
    assert made["AccessKey"]["SecretAccessKey"] not in json.dumps(listed)


@pytest.mark.parametrize("name", ["", " ", "a" * 51, "ü", "a\nb"])
async def test_names_that_are_refused(store: IdentityStore, name: str) -> None:
    status, reply = await ask(store, "POST", name=name)
    assert (status, reply["message"].startswith("name must be 1 to 50 printable")) == (400, True)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_other_accounts_have_no_say(store: IdentityStore, method: str) -> None:
    status, reply = await ask(store, method, requester=OTHER_ROOT, name="x")
    assert (status, f"first account, {ACCOUNT}" in reply["message"]) == (403, True)
    assert len(await store.accounts()) == 2


async def test_to_make_one_takes_a_permission_of_its_own(store: IdentityStore) -> None:
    def allow(action: str) -> str:
        return json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": {"Effect": "Allow", "Action": action, "Resource": "*"},
            }
        )

    queues = await user(store, "queues", document=allow("moorage:Write"))
    status, reply = await ask(store, "POST", requester=queues, name="x")
    assert (status, "perform: moorage:CreateAccount on resource: *" in reply["message"]) == (403, True)
    admin = await user(store, "admin", document=allow("moorage:*"))
    assert (await ask(store, "POST", requester=admin, name="x"))[0] == 200
