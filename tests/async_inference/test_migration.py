"""A database of the release before asynchronous inference is brought up to date, and keeps what is in it."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, MetaData, Table, func, insert, inspect, select, text
from sqlalchemy.ext.asyncio import create_async_engine

from moorage.async_inference.base import AsyncInvocation, Notice, Outcome, Status
from moorage.async_inference.outbox import Outbox
from moorage.async_inference.sql import SqlQueue
from moorage.resources import Endpoint, EndpointConfig, EndpointStatus, Model
from moorage.storage import migrations, schema
from moorage.storage.base import ListQuery
from moorage.storage.database import open_database, to_json
from moorage.storage.resources import SqlResourceStore
from tests.async_inference.test_queue import check_counts
from tests.servers import MoorageServer, eventually
from tests.storage.conftest import database_url, sqlite_url
from tests.storage.samples import ACCOUNT, config, endpoint, model

__all__ = ["database_url", "sqlite_url"]

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PAGE_TOKEN_KEY = "ab" * 32
TAGS = {"team": "red"}
CONTAINER = Path(__file__).with_name("spooling_container.py")
MODELS = tuple(model(f"m{number}", minutes=number) for number in range(3))
VARIANT = {
    "VariantName": "AllTraffic",
    "ModelName": "m0",
    "InitialInstanceCount": 1,
    "InstanceType": "ml.m5.large",
}
SERVING = endpoint(
    status=EndpointStatus.IN_SERVICE,
    deployment_id="d1",
    target_config_name=None,
    target_deployment_id=None,
    deployed={
        "EndpointConfig": {"EndpointConfigName": "config-1", "ProductionVariants": [VARIANT]},
        "Models": {"m0": MODELS[0].definition},
        "ProductionVariants": [
            {
                "VariantName": "AllTraffic",
                "ModelName": "m0",
                "InitialVariantWeight": 1.0,
                "InitialInstanceCount": 1,
                "Images": [
                    {"SpecifiedImage": "image:1", "ResolvedImage": "image:1", "ResolutionTime": 1772346600.0}
                ],
            }
        ],
    },
)


async def make_database_of_0001(url: str) -> None:
    """As the release that had no other revision left it: with resources, and pages that a client is reading."""
    engine = create_async_engine(url, json_serializer=to_json)
    async with engine.begin() as connection:
        await connection.run_sync(_migrate_to, "0001")
        await connection.execute(schema.secrets.update().values(value=PAGE_TOKEN_KEY))
        for table, resources in (
            (schema.models, MODELS),
            (schema.endpoint_configs, [config()]),
            (schema.endpoints, [SERVING]),
        ):
            await connection.execute(insert(table), [_row(table, resource) for resource in resources])
    await engine.dispose()


def _migrate_to(connection: Connection, revision: str) -> None:
    alembic = Config()
    alembic.set_main_option("script_location", str(Path(migrations.__file__).parent))
    alembic.attributes["connection"] = connection
    command.upgrade(alembic, revision)


def _row(table: Table, resource: object) -> dict[str, Any]:
    values = {column.name: getattr(resource, column.name, None) for column in table.c}
    return values | {"tags": TAGS}


async def test_an_upgrade_keeps_resources_and_adds_the_queue(database_url: str) -> None:
    await make_database_of_0001(database_url)
    engine = create_async_engine(database_url)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT version_num FROM alembic_version")) == "0001"
        tables = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
        assert not [name for name in tables if name.startswith("async_")]
    await engine.dispose()

    database = await open_database(database_url)
    async with database.read() as connection:
        assert await connection.scalar(text("SELECT version_num FROM alembic_version")) == migrations.HEAD
    assert database.page_token_key == bytes.fromhex(PAGE_TOKEN_KEY), "pages go on"
    store = SqlResourceStore(database)
    assert (await store.page(Model, ACCOUNT, ListQuery(sort_order="Ascending"))).items == MODELS
    assert (await store.page(EndpointConfig, ACCOUNT, ListQuery())).items == (config(),)
    assert (await store.page(Endpoint, ACCOUNT, ListQuery())).items == (SERVING,)
    assert await store.get_tags(SERVING.arn) == TAGS
    queue = SqlQueue(database)
    assert await queue.backlogged() == []
    await queue.put(invocation(1))
    await database.close()

    database = await open_database(database_url)
    [claim] = await SqlQueue(database).claim(ACCOUNT, "churn", most=9)
    assert claim.invocation.body == b"1"
    await database.close()


async def test_several_may_upgrade_at_once(database_url: str) -> None:
    await make_database_of_0001(database_url)
    databases = await asyncio.gather(*(open_database(database_url) for _ in range(4)))
    await asyncio.gather(*(SqlQueue(each).put(invocation(number)) for number, each in enumerate(databases)))
    async with databases[0].read() as connection:
        assert await connection.scalar(select(func.count()).select_from(schema.async_invocations)) == 4
    for each in databases:
        await each.close()


async def test_a_queue_in_use_survives_reopening(database_url: str) -> None:
    """One waits, one is held, one has ended and is owed a notice: each is found as it was."""
    database = await open_database(database_url)
    queue = SqlQueue(database)
    given = [invocation(number) for number in range(3)]
    for each in given:
        await queue.put(each)
    ended, held = await queue.claim(ACCOUNT, "churn", most=2)
    notice = Notice(account_id=ACCOUNT, topic_arn="arn:aws:sns:us-east-1:111122223333:t", message="{}")
    outcome = Outcome(
        status=Status.FAILED, finished_time=datetime.now(UTC), reason="why — ☃", notices=(notice,)
    )
    assert await queue.finish(ended, outcome)
    before = await queue.records(ACCOUNT)
    await database.close()

    database = await open_database(database_url)
    queue = SqlQueue(database)
    assert await queue.records(ACCOUNT) == before
    assert [record.status for _, record in before] == [Status.QUEUED, Status.RUNNING, Status.FAILED]
    [owed] = await Outbox(database).due(datetime.now(UTC), 9)
    assert owed.notice == notice
    [waiting] = await queue.claim(ACCOUNT, "churn", most=9)
    assert waiting.invocation == given[2]
    assert not await queue.finish(ended, outcome), "what has ended stays ended"
    assert await queue.finish(held, outcome), "a claim outlives the process, until another recovers it"
    await database.close()


async def test_a_queue_of_before_is_counted_and_keeps_the_bodies_that_are_needed(database_url: str) -> None:
    """Of the revision that had the bodies among the invocations, and no counts."""
    engine = create_async_engine(database_url, json_serializer=to_json)
    async with engine.begin() as connection:
        await connection.run_sync(_migrate_to, "0005")
        old = await connection.run_sync(
            lambda sync: Table("async_invocations", MetaData(), autoload_with=sync)
        )
        states = [
            (None, None),
            (None, "t"),
            ("Completed", None),
            ("Failed", None),
            ("Expired", None),
            ("Failed", None),
        ]
        for number, (status, token) in enumerate(states):
            given = invocation(number)
            await connection.execute(
                insert(old),
                {
                    "invocation_id": given.invocation_id,
                    "account_id": ACCOUNT,
                    "endpoint_name": "churn",
                    "inference_id": given.inference_id,
                    "received_time": NOON,
                    "expires_time": NOON + timedelta(days=999),
                    "request": {"timeout_seconds": 900},
                    "body": given.body,
                    "claim_after": NOON,
                    "token": token,
                    "attempts": 1,
                    "deaths": 0,
                    "finished_time": NOON if status else None,
                    "status": status,
                },
            )
    await engine.dispose()

    database = await open_database(database_url)
    queue = SqlQueue(database)
    [backlog] = await queue.backlogs(ACCOUNT)
    assert backlog.counts == {
        Status.QUEUED: 1,
        Status.RUNNING: 1,
        Status.COMPLETED: 1,
        Status.FAILED: 2,
        Status.EXPIRED: 1,
    }
    assert await queue.recover() == [(ACCOUNT, "churn")]
    assert [claim.invocation.body for claim in await queue.claim(ACCOUNT, "churn", most=9)] == [b"0", b"1"]
    async with database.read() as connection:
        kept = set(await connection.scalars(select(schema.async_bodies.c.body)))
    assert kept == {b"0", b"1", b"3", b"4", b"5"}, "all but the completed one's"
    await check_counts(database)
    await database.close()


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_server_starts_on_the_database_of_the_release_before(
    request: pytest.FixtureRequest, tmp_path: Path, database: str
) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    url = f"sqlite+aiosqlite:///{data_dir / 'moorage.db'}"
    if database == "postgres":
        url = request.getfixturevalue("postgres_url")
    asyncio.run(make_database_of_0001(url))
    settings = tmp_path / "moorage.toml"
    settings.write_text(f'[images]\n"image:1" = ["{{python}}", "{CONTAINER}"]\n')
    arguments = ("--config", str(settings), "--database-url", url)
    server = MoorageServer(data_dir, arguments=arguments, account_id=ACCOUNT).start()
    try:
        models = server.client("sagemaker").list_models(SortBy="Name", SortOrder="Ascending")["Models"]
        assert [each["ModelName"] for each in models] == ["m0", "m1", "m2"]
        runtime = server.client("sagemaker-runtime")
        answers: list[bytes] = []

        def answered() -> bool:
            try:
                answers.append(
                    runtime.invoke_endpoint(EndpointName="churn", Body=b"as before")["Body"].read()
                )
            except runtime.exceptions.ModelNotReadyException:
                return False
            return True

        eventually(answered)
        assert answers == [b"as before"]
    finally:
        server.ensure_stopped()


def invocation(number: int) -> AsyncInvocation:
    now = datetime.now(UTC)
    return AsyncInvocation(
        invocation_id=f"00000000-0000-0000-0000-{number:012}",
        account_id=ACCOUNT,
        endpoint_name="churn",
        inference_id=f"inference-{number}",
        received_time=now + timedelta(microseconds=number),
        expires_time=now + timedelta(hours=6),
        timeout_seconds=900,
        content_type="text/csv",
        body=b"%d" % number,
        output_location="s3://bucket/out",
    )
