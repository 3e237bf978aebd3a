"""Which instances are given the credentials of their execution role, and by what."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.requests import Request

from moorage.auth import sessions
from moorage.controller.container_credentials import container_credentials_routes
from moorage.controller.execution_roles import ExecutionRoles
from moorage.launchers.base import InstanceSpec, InstanceState, InstanceStatus
from moorage.storage.identities import IdentityStore
from tests.controller.identities import ACCOUNT, NOW, SEALER, identity_store

SECRET = "s" * 43
ROLE = f"arn:aws:iam::{ACCOUNT}:role/absent"
NOT_FOUND = {"message": "There are no such credentials."}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[IdentityStore]:
    async with identity_store(tmp_path) as store:
        yield store


def instance(status: InstanceStatus, secret: str = SECRET, role_arn: str | None = ROLE) -> InstanceState:
    spec = InstanceSpec(
        instance_id="i-1",
        account_id=ACCOUNT,
        endpoint_name="e",
        variant_name="v",
        deployment_id="d",
        container_hostname="primary",
        argv=("true",),
        environment={},
        base_dir="/nowhere",
        log_file="/nowhere.log",
        startup_timeout_seconds=1,
        role_arn=role_arn,
        credentials_secret=secret,
    )
    return InstanceState(spec=spec, status=status)


async def ask(
    store: IdentityStore,
    state: InstanceState,
    *,
    secret: str = SECRET,
    instance_id: str = "i-1",
    operation: str = "GetContainerCredentials",
) -> tuple[int, dict[str, str]]:
    roles = ExecutionRoles(store, SEALER, clock=lambda: NOW)
    [route] = container_credentials_routes(
        instance=lambda id: state if id == state.spec.instance_id else None, roles=roles, region="us-east-1"
    )
    scope = {
        "type": "http",
        "headers": [(b"x-moorage-operation", operation.encode())],
        "path_params": {"instance_id": instance_id, "secret": secret},
    }
    reply = await route.endpoint(Request(scope))
    return reply.status_code, json.loads(bytes(reply.body))


@pytest.mark.parametrize(
    ("status", "given"),
    [
        (InstanceStatus.STARTING, True),
        (InstanceStatus.IN_SERVICE, True),
        (InstanceStatus.UNHEALTHY, True),
        (InstanceStatus.RESTARTING, False),
        (InstanceStatus.FAILED, False),
        (InstanceStatus.STOPPING, False),
        (InstanceStatus.STOPPED, False),
    ],
)
async def test_an_instance_is_given_credentials_while_it_runs(
    store: IdentityStore, status: InstanceStatus, given: bool
) -> None:
    code, answer = await ask(store, instance(status))
    assert code == (200 if given else 404)
    assert given or answer == NOT_FOUND


@pytest.mark.parametrize(
    "asked",
    [
        {"secret": SECRET[:-1]},
        {"secret": SECRET + "s"},
        {"secret": "é" * 43},
        {"secret": ""},
        {"instance_id": "i-2"},
        {"operation": "Other"},
    ],
)
async def test_what_is_wrong_is_not_told(store: IdentityStore, asked: dict[str, str]) -> None:
    assert await ask(store, instance(InstanceStatus.IN_SERVICE), **asked) == (404, NOT_FOUND)


async def test_an_instance_without_a_secret_is_given_none(store: IdentityStore) -> None:
    state = instance(InstanceStatus.IN_SERVICE, secret="")
    assert await ask(store, state, secret="") == (404, NOT_FOUND)


async def test_the_credentials_are_of_the_role_for_an_hour(store: IdentityStore) -> None:
    _, answer = await ask(store, instance(InstanceStatus.IN_SERVICE))
    session = sessions.open_token(SEALER, answer["Token"], NOW)
    assert session.principal_arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/absent/SageMaker"
    assert (session.access_key_id, session.secret_access_key) == (
        answer["AccessKeyId"],
        answer["SecretAccessKey"],
    )
    assert answer["Expiration"] == "2026-03-01T07:30:00Z"
    assert answer["RoleArn"] == ROLE


def test_the_secret_is_not_shown() -> None:
    assert SECRET not in repr(instance(InstanceStatus.IN_SERVICE))
