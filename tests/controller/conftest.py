"""The controller's app on a real server, and real boto3 clients to it."""

import asyncio
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
import uvicorn
from botocore.config import Config
from starlette.types import ASGIApp, Receive, Scope, Send

from moorage.auth.sealing import Sealer
from moorage.controller.app import create_app
from moorage.controller.execution_roles import ExecutionRoles
from moorage.controller.log_files import LogDirectories
from moorage.storage.base import ResourceStore
from moorage.storage.database import open_database
from moorage.storage.identities import IdentityStore
from moorage.storage.memory import MemoryResourceStore
from moorage.storage.objects import Objects
from moorage.storage.resources import SqlResourceStore

ACCOUNT = "111122223333"
REGION = "eu-central-1"


SESSION = boto3.Session(region_name=REGION, aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="secret")
"""Shared: it keeps the service models, whose reading takes longer than most tests."""


@dataclass
class Controller:
    """A running server, what its collaborators saw, and what they answer."""

    folder: Path
    url: str = ""
    store: ResourceStore = field(default_factory=MemoryResourceStore)
    woken: list[tuple[str, str]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    missing_objects: set[str] = field(default_factory=set)
    asked_objects: list[str] = field(default_factory=list)
    loop: asyncio.AbstractEventLoop | None = None

    def client(self, service: str = "sagemaker", **config: Any) -> Any:
        return SESSION.client(
            service, endpoint_url=self.url, config=Config(retries={"max_attempts": 0}, **config)
        )

    def run(self, coroutine: Any) -> Any:
        """Run in the server's loop, to which its store belongs."""
        assert self.loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def wake(self, account_id: str, endpoint_name: str) -> None:
        self.woken.append((account_id, endpoint_name))

    def instance_counts(self, account_id: str, endpoint_name: str) -> Mapping[str, int]:
        return self.counts

    @property
    def logs(self) -> Path:
        """The directory of the logs of all instances."""
        return self.folder / "logs"

    def acting_as(
        self, account_id: str, role_arn: str | None, *, source_arn: str, role_exists: bool = False
    ) -> "Controller":
        """As `Objects` has it."""
        return self

    async def exists(self, url: str) -> bool:
        self.asked_objects.append(url)
        return url not in self.missing_objects


class Relayed:
    """Adds the headers that the gateway adds."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            authorization = dict(scope["headers"]).get(b"authorization", b"")
            service = next(
                (name for name in (b"sts", b"iam") if b"/%s/" % name in authorization), b"sagemaker"
            )
            scope["headers"] = [
                *scope["headers"],
                (b"x-moorage-account-id", ACCOUNT.encode()),
                (b"x-moorage-principal-arn", f"arn:aws:iam::{ACCOUNT}:root".encode()),
                (b"x-moorage-access-key-id", b"AKIDEXAMPLE"),
                (b"x-moorage-user-id", ACCOUNT.encode()),
                (b"x-moorage-service", service),
                (b"x-moorage-region", REGION.encode()),
                (b"x-moorage-source-ip", b"127.0.0.1"),
                (b"x-moorage-secure", b"false"),
            ]
            if not any(name == b"x-amzn-requestid" for name, _ in scope["headers"]):
                scope["headers"].append((b"x-amzn-requestid", b"request-1"))
        await self._app(scope, receive, send)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()


def serve(controller: Controller, database_url: str | None) -> Generator[Controller]:
    """Serve in a thread with a loop of its own until the generator is closed."""
    # asyncio spares those the delays of Nagle's algorithm that say that they are TCP.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    controller.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    ready = threading.Event()
    servers: list[_Server] = []

    async def run() -> None:
        controller.loop = asyncio.get_running_loop()
        database = None if database_url is None else await open_database(database_url)
        if database is not None:
            controller.store = SqlResourceStore(database)
        kept = await open_database(f"sqlite+aiosqlite:///{controller.folder / 'identities.db'}")
        sealer = Sealer(b"a key for tests, and only for them")
        identities = IdentityStore(kept, sealer)
        await identities.ensure_account(ACCOUNT, "root")
        app = create_app(
            identities=identities,
            sealer=sealer,
            store=controller.store,
            wake=controller.wake,
            instance_counts=controller.instance_counts,
            roles=ExecutionRoles(identities, sealer),
            objects=cast(Objects, controller),
            logs=LogDirectories(controller.logs, controller.store),
            region=REGION,
        )
        config = uvicorn.Config(Relayed(app), lifespan="off", log_config=None, ws="none")
        servers.append(_Server(config, ready.set))
        await servers[0].serve(sockets=[listener])
        await kept.close()
        if database is not None:
            await database.close()

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="controller")
    thread.start()
    assert ready.wait(30)
    try:
        yield controller
    finally:
        servers[0].should_exit = True
        thread.join(30)
        listener.close()


@pytest.fixture(params=["memory", "sqlite"])
def controller(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Controller]:
    url = None if request.param == "memory" else f"sqlite+aiosqlite:///{tmp_path / 'moorage.db'}"
    yield from serve(Controller(tmp_path), url)


@pytest.fixture
def sagemaker(controller: Controller) -> Any:
    client = controller.client()
    yield client
    client.close()
