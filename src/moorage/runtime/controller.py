"""What a controller is made of, once it leads a database."""

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict
from functools import partial
from typing import Any

import uvicorn

from moorage import heap
from moorage.async_inference import messages
from moorage.async_inference.attempt import Attempts, Rules
from moorage.async_inference.dispatcher import Dispatcher
from moorage.async_inference.publisher import Publisher, create_publisher
from moorage.async_inference.sql import SqlQueue
from moorage.audit import AuditLog
from moorage.auth.sealing import Sealer
from moorage.clock import SteadyClock
from moorage.config import Settings
from moorage.controller.accounts import account_routes
from moorage.controller.app import create_app
from moorage.controller.async_invocations import acceptance_routes
from moorage.controller.async_queue import async_routes
from moorage.controller.buckets import bucket_routes
from moorage.controller.container_credentials import container_credentials_routes
from moorage.controller.execution_roles import ByCredentials, ByPolicies, ExecutionRoles
from moorage.controller.feed import Feed
from moorage.controller.fleet import InstanceWorkshop
from moorage.controller.housekeeping import Housekeeper
from moorage.controller.instance_logs import log_routes
from moorage.controller.log_files import LogDirectories
from moorage.controller.metrics import Metrics, metrics_routes
from moorage.controller.reconcile import Reconciler
from moorage.gateway.feed import Report, follow, observed
from moorage.launchers.remote import RemoteLauncher
from moorage.routing.table import RoutingTable
from moorage.storage.base import Tags
from moorage.storage.bucket_policies import BucketPolicies
from moorage.storage.database import Database
from moorage.storage.embedded_s3 import EmbeddedS3
from moorage.storage.failures import DatabaseUnavailable
from moorage.storage.identities import IdentityStore
from moorage.storage.identity_snapshot import Changed
from moorage.storage.lease import Lease, LeaseLost
from moorage.storage.objects import Objects
from moorage.storage.resources import SqlResourceStore
from moorage.storage.s3_accounts import S3Accounts

_RETRY_SECONDS = 0.5
_WAIT_FOR_RECOVERY_SECONDS = 5.0
_WAIT_FOR_GATEWAYS_SECONDS = 1.0
logger = logging.getLogger(__name__)


async def serve(settings: Settings, url: str, database: Database, sealer: Sealer) -> None:
    """Answer the gateways, reconcile, and run what is queued, until SIGTERM. The database's lease is kept already,
    and given back then; closing the database is the caller's.

    Raises:
        LeaseLost: another controller leads the database by now, so that this one stops.
    """
    lease = database.lease
    assert lease is not None
    assert lease.keeping is not None
    try:
        policies_changed = asyncio.Event()
        tags = _TagChanges()
        store = SqlResourceStore(database, on_policies_change=policies_changed.set, on_tags_change=tags.add)
        audit = AuditLog(settings.audit_file)
        feed = Feed(gateways=settings.workers + 1)  # the dispatcher is one more
        publish_state = partial(_publish_state, feed, database, lease)
        publish_state()
        database.outage.on_change = publish_state
        changed = _Changes(feed.synced)
        identities = IdentityStore(database, sealer, on_change=changed.add)
        await identities.ensure_account(settings.account_id, "root")
        feed.publish_identities(await identities.snapshot())

        async def publish_policies() -> None:
            feed.publish_policies(await store.all_policies())

        await publish_policies()
        feed.change_endpoint_tags(await store.all_endpoint_tags())
        bucket_policies_changed = asyncio.Event()
        bucket_policies = BucketPolicies(
            database, _embedded_s3(settings), on_change=bucket_policies_changed.set
        )
        publication = _BucketPolicyPublication(bucket_policies, feed)
        await publication.publish()
        roles = ExecutionRoles(identities, sealer, strict=settings.strict_roles, known=changed.known)
        objects = _objects(settings, url, roles)
        clock = SteadyClock()
        queue = SqlQueue(database, clock=clock)
        publisher = create_publisher(settings, database, clock=clock)
        reports: asyncio.Queue[Report] = asyncio.Queue()
        table = RoutingTable(
            on_drained=lambda instance_id: reports.put_nowait({"drained": instance_id}),
            on_changed=lambda account_id, name: dispatcher.route_changed(account_id, name),
        )
        attempts = Attempts(
            queue=queue, objects=objects, rules=_rules(settings), notify=publisher.wake, clock=clock
        )
        dispatcher = Dispatcher(
            queue=queue,
            attempts=attempts,
            table=table,
            keep_seconds=settings.async_keep_seconds,
        )
        workshop = InstanceWorkshop(settings=settings, objects=objects)
        reconciler = Reconciler(
            settings=settings,
            store=store,
            launcher=RemoteLauncher(settings.launcher_socket),
            feed=feed,
            workshop=workshop,
            backlog=_Backlog(dispatcher, publisher),
        )
        log_directories = LogDirectories(settings.log_dir, store)
        app = create_app(
            store=store,
            wake=reconciler.wake,
            instance_counts=reconciler.instance_counts,
            roles=roles,
            objects=objects,
            identities=identities,
            sealer=sealer,
            audit=audit,
            logs=log_directories,
            region=settings.region,
        )
        app.router.routes.extend(
            (
                *log_routes(log_directories),
                *account_routes(identities, first_account_id=settings.account_id),
                *bucket_routes(bucket_policies, identities, tell_gateways=publication.tell_gateways),
                *acceptance_routes(deployed=reconciler.deployed, put=queue.put, wake=dispatcher.wake),
                *container_credentials_routes(
                    instance=reconciler.instance, roles=roles, region=settings.region
                ),
                *metrics_routes(
                    Metrics(
                        observations=feed.observations,
                        store=store,
                        queue=queue,
                        instances=reconciler.instance_statuses,
                        finished=lambda: attempts.finished,
                        buckets=settings.metrics_buckets,
                    ),
                    first_account_id=settings.account_id,
                ),
                *async_routes(queue, fail=dispatcher.fail, wake=dispatcher.wake),
            )
        )
        await feed.listen(settings.feed_socket)
        recovered = asyncio.Event()
        housekeeper = Housekeeper(
            settings=settings,
            store=store,
            workshop=workshop,
            instances=reconciler.instance_specs,
            bucket_policies=None if settings.s3_endpoint else bucket_policies,
        )
        works = {
            "reconcile": reconciler.run(recovered.set),
            "follow the feed": follow(
                settings.feed_socket,
                table,
                reports,
                asyncio.Event(),
                observe=lambda: observed(table, {"name": "controller"}),
            ),
            "dispatch": dispatcher.run(),
            "publish identities": changed.publish(identities.difference, feed.change_identities),
            "publish policies": _publish(policies_changed, publish_policies),
            "publish tags": tags.publish(store.get_tags, feed.change_endpoint_tags),
            "publish policies of buckets": _publish(bucket_policies_changed, publication.publish),
            "publish notifications": publisher.run(),
            "remove what is left": housekeeper.run(recovered),
        }
        tasks = [lease.keeping, *(asyncio.create_task(work, name=name) for name, work in works.items())]
        try:
            # Clients are answered once it is known what is in service; the gateway holds them as long.
            with suppress(TimeoutError):
                async with asyncio.timeout(_WAIT_FOR_RECOVERY_SECONDS):
                    await recovered.wait()
            heap.give_back()
            await _answer(app, settings, tasks)
        finally:
            feed.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await workshop.close()
    finally:
        with suppress(DatabaseUnavailable):  # then it ends by itself
            await lease.release()


def _publish_state(feed: Feed, database: Database, lease: Lease) -> None:
    since = database.outage.since
    feed.publish_control_plane(
        {
            "controller": {"available": True, "epoch": lease.epoch},
            "database": {"available": True}
            if since is None
            else {"available": False, "since": since.isoformat()},
        }
    )


async def _publish(changed: asyncio.Event, publish: Callable[[], Awaitable[None]]) -> None:
    """Changes that come while the state is being read share the next one."""
    while True:
        await changed.wait()
        changed.clear()
        try:
            await publish()
        except DatabaseUnavailable:
            changed.set()
            await asyncio.sleep(_RETRY_SECONDS)
        except Exception:
            logger.exception("who may do what could not be read, and is tried again")
            changed.set()
            await asyncio.sleep(_RETRY_SECONDS)


class _BucketPolicyPublication:
    """Of the policies of buckets, to the gateways: what is read later is told later."""

    def __init__(self, policies: BucketPolicies, feed: Feed) -> None:
        self._policies = policies
        self._feed = feed
        self._one_at_a_time = asyncio.Lock()

    async def publish(self) -> None:
        async with self._one_at_a_time:
            found = await self._policies.all()
            self._feed.publish_bucket_policies({name: asdict(policy) for name, policy in found.items()})

    async def tell_gateways(self) -> None:
        """Publish, and return once the gateways have taken it in. One that is away learns it when it is back."""
        with suppress(DatabaseUnavailable):  # published as soon as the database answers again
            await self.publish()
            await self._feed.synced(timeout_seconds=_WAIT_FOR_GATEWAYS_SECONDS)


class _TagChanges:
    """Of the tags of endpoints, on their way to the gateways."""

    def __init__(self) -> None:
        self._arns: set[str] = set()
        self._any = asyncio.Event()

    def add(self, arn: str) -> None:
        self._arns.add(arn)
        self._any.set()

    async def publish(
        self,
        read: Callable[[str], Awaitable[Tags | None]],
        tell: Callable[[Mapping[str, Tags | None]], None],
    ) -> None:
        """What changes while it is read is read again."""
        while True:
            await self._any.wait()
            self._any.clear()
            arns, self._arns = self._arns, set()
            try:
                tell({arn: await read(arn) for arn in arns})
            except Exception as error:
                if not isinstance(error, DatabaseUnavailable):
                    logger.exception("tags of endpoints could not be read, and are tried again")
                await asyncio.sleep(_RETRY_SECONDS)
                self._arns |= arns
                self._any.set()


class _Changes:
    """Of identities, on their way to the gateways."""

    def __init__(self, synced: Callable[[], Awaitable[None]]) -> None:
        """`synced` returns when the gateways have taken in what they were told so far."""
        self._synced = synced
        self._changed = Changed()
        self._any = asyncio.Event()
        self._none = asyncio.Event()
        self._none.set()
        self._number = 0
        self._known = 0
        """The number of changes that were added, and of those that the gateways know of."""

    def add(self, changed: Changed) -> None:
        self._changed |= changed
        self._any.set()
        self._none.clear()
        self._number += 1

    async def known(self) -> int:
        """Return when the gateways know of all changes that have been added, or when that takes too long: the number
        of changes."""
        number = self._number
        if number == self._known:
            return number
        with suppress(TimeoutError):
            async with asyncio.timeout(_WAIT_FOR_GATEWAYS_SECONDS):
                await self._none.wait()
                await self._synced()
        self._known = max(self._known, number)  # also of gateways that hang: they are waited for once
        return number

    async def publish(
        self,
        read: Callable[[Changed], Awaitable[Mapping[str, Any]]],
        tell: Callable[[Mapping[str, Any]], None],
    ) -> None:
        """Changes that come while others are being read share the next difference."""
        while True:
            await self._any.wait()
            self._any.clear()
            changed, self._changed = self._changed, Changed()
            try:
                tell(await read(changed))
            except Exception as error:
                if not isinstance(error, DatabaseUnavailable):
                    logger.exception("who may do what could not be read, and is tried again")
                await asyncio.sleep(_RETRY_SECONDS)
                self.add(changed)
            if not self._any.is_set():
                self._none.set()


class _Backlog:
    """What the reconciler asks of asynchronous inference."""

    def __init__(self, dispatcher: Dispatcher, publisher: Publisher) -> None:
        self.fail_all = dispatcher.fail_all
        self._publisher = publisher

    async def announce(self, account_id: str, topic_arns: Collection[str]) -> None:
        await self._publisher.owe([messages.test_notice(account_id, topic) for topic in sorted(topic_arns)])


def _rules(settings: Settings) -> Rules:
    return Rules(
        region=settings.region,
        patience_seconds=settings.async_storage_patience_seconds,
        most_deaths=settings.async_max_deaths,
        content_length_required=settings.async_require_content_length,
        connect_timeout_seconds=settings.connect_timeout_seconds,
    )


async def _answer(app: object, settings: Settings, tasks: "Sequence[asyncio.Task[None]]") -> None:
    """Serve HTTP until a signal comes; a task that dies takes the process with it, to be started anew."""
    server = _Server(
        uvicorn.Config(
            app,  # type: ignore[arg-type]
            uds=str(settings.controller_socket),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=10,
        )
    )

    def leave(_: object = None) -> None:
        server.should_exit = True

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave)
    for task in tasks:
        task.add_done_callback(leave)
    serving = asyncio.create_task(server.serve(), name="serve HTTP")
    await asyncio.wait({serving, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    if any(_is_lease_lost(task) for task in tasks):
        server.force_exit = True
        for task in tasks:
            task.cancel()
    await serving
    for task in tasks:
        if task.done() and not task.cancelled():
            task.result()


def _is_lease_lost(task: "asyncio.Task[None]") -> bool:
    return task.done() and not task.cancelled() and isinstance(task.exception(), LeaseLost)


class _Server(uvicorn.Server):
    """Leaves signals alone: uvicorn would raise them anew at its end, and so end us before we have tidied up."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


def _objects(settings: Settings, url: str, roles: ExecutionRoles) -> Objects:
    """Either the S3 of the settings, with the credentials of our environment, or our own, as any client uses it."""
    if settings.s3_endpoint:
        return Objects(
            endpoint=settings.s3_endpoint,
            region=os.environ.get("AWS_REGION", settings.region),
            authority=ByPolicies(
                roles,
                access_key_id=os.environ.get("AWS_ACCESS_KEY_ID"),
                secret_access_key=os.environ.get("AWS_SECRET_ACCESS_KEY"),
                is_secure=settings.s3_endpoint.startswith("https:"),
            ),
        )
    return Objects(endpoint=url, region=settings.region, authority=ByCredentials(roles))


def _embedded_s3(settings: Settings) -> EmbeddedS3:
    return EmbeddedS3(settings.s3_socket, S3Accounts.of_environment(os.environ))
