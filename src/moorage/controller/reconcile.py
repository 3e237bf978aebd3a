"""Makes endpoints be what their rows say: starts, swaps and stops fleets of instances, and publishes routes.

One worker per endpoint that has something to do, woken by operations and at start-up. A worker reads the row and
takes the step that its status asks for; every step ends in a compare-and-set of the row, so a controller that dies in
the middle is simply followed by another that reads the row again. What instances there are is the launcher's to say:
the first item of its `watch` lists those that outlived the controller, and they are taken over.

    Creating / Updating   start the target fleet; all healthy: publish, then InService; one failed: stop them all
    InService             after a restart: make up for instances that are missing (SystemUpdating meanwhile)
    Deleting              withdraw the route, drain, stop, delete the row

An instance that is no part of a fleet in service or on its way in is drained and stopped.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from moorage.config import Settings
from moorage.controller.feed import Feed
from moorage.controller.fleet import DeploymentFailed, DeploymentPlan, InstanceWorkshop, plan_deployment
from moorage.controller.instance_states import InstanceStates
from moorage.launchers.base import InstanceState, InstanceStatus, Launcher, LauncherError
from moorage.resources import Endpoint, EndpointStatus
from moorage.routing.table import route_document
from moorage.storage.base import EndpointChanges, ResourceStore

_DEPLOYING = (EndpointStatus.CREATING, EndpointStatus.UPDATING)
_SERVING = (EndpointStatus.IN_SERVICE, EndpointStatus.SYSTEM_UPDATING)
_GONE = (InstanceStatus.STOPPING, InstanceStatus.STOPPED)
_RETRY_SECONDS = 2.0
_LONGEST_REASON = 1024
_LONGEST_ASYNC_INVOCATION_SECONDS = 3600.0
"""The most that InvocationTimeoutSeconds may be. What an update replaces finishes what it has begun."""
logger = logging.getLogger(__name__)

Key = tuple[str, str]


class Backlog(Protocol):
    """What asynchronous inference has to know of an endpoint's life."""

    async def fail_all(self, account_id: str, endpoint_name: str, reason: str) -> None:
        """End every invocation that is still queued; no more are accepted."""

    async def announce(self, account_id: str, topic_arns: Collection[str]) -> None:
        """Send a test message to the topics of an endpoint that was created or updated."""


class Reconciler:
    """Drives every endpoint from its desired to its actual state."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: ResourceStore,
        launcher: Launcher,
        feed: Feed,
        workshop: InstanceWorkshop,
        backlog: Backlog,
    ) -> None:
        self._settings = settings
        self._store = store
        self._launcher = launcher
        self._feed = feed
        self._workshop = workshop
        self._backlog = backlog
        self._states = InstanceStates()
        self._changed = asyncio.Condition()
        self._serving: dict[Key, Endpoint] = {}
        """The endpoints whose route is published, as they were when it was."""
        self._workers: dict[Key, asyncio.Task[None]] = {}
        self._again: set[Key] = set()
        self._removals: dict[str, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self, started: Callable[[], None]) -> None:
        """Reconcile until cancelled. `started` is called when the routes of all endpoints are published."""
        while True:
            try:
                async with asyncio.TaskGroup() as self._tasks:
                    await self._follow(started)
            except* LauncherError as group:
                logger.warning("the launcher went away (%s); connecting again", group.exceptions[0])
            await asyncio.sleep(0.2)

    def wake(self, account_id: str, endpoint_name: str) -> None:
        """An endpoint's row has changed."""
        key = (account_id, endpoint_name)
        if key in self._workers:
            self._again.add(key)
        elif self._tasks is not None:
            worker = self._tasks.create_task(self._work(key), name=f"reconcile {endpoint_name}")
            self._workers[key] = worker
            worker.add_done_callback(lambda _: self._workers.pop(key, None))

    def instance_counts(self, account_id: str, endpoint_name: str) -> Mapping[str, int]:
        """The instances in service now, by variant."""
        return Counter(
            state.spec.variant_name
            for state in self._states.of_endpoint(account_id, endpoint_name)
            if state.status is InstanceStatus.IN_SERVICE
        )

    def instance_statuses(self) -> Mapping[tuple[str, str, str, InstanceStatus], int]:
        """How many instances there are, by account, endpoint, variant and status."""
        return Counter(
            (state.spec.account_id, state.spec.endpoint_name, state.spec.variant_name, state.status)
            for state in self._states
        )

    def deployed(self, account_id: str, endpoint_name: str) -> DeploymentPlan | None:
        """What an endpoint in service was made from; None while it has no route."""
        endpoint = self._serving.get((account_id, endpoint_name))
        return None if endpoint is None else _plan_in_service(endpoint)

    # --- what the launcher tells ----------------------------------------------------------------------

    async def _follow(self, started: Callable[[], None]) -> None:
        first = True
        async for states in self._launcher.watch():
            if first:
                first = False
                self._states = InstanceStates()
                self._take_in(states)
                await self._recover()
                started()
            else:
                self._take_in(states)
            async with self._changed:
                self._changed.notify_all()
        raise LauncherError("it ended its reports")

    def _take_in(self, states: Sequence[InstanceState]) -> None:
        for key in {self._states.take_in(state) for state in states}:
            if key in self._serving:
                self._publish(self._serving[key])

    async def _recover(self) -> None:
        """After a start: publish what is in service, resume what was under way, stop what belongs to nothing."""
        endpoints = await self._store.all_endpoints()
        for endpoint in endpoints:
            if endpoint.deployment_id is not None and endpoint.status is not EndpointStatus.DELETING:
                self._publish(endpoint)
        for endpoint in endpoints:
            # Said before anyone can ask: a client that reads InService must find instances.
            if endpoint.status is EndpointStatus.IN_SERVICE and not self._is_whole(endpoint):
                await self._store.transition(endpoint, _SERVING, status=EndpointStatus.SYSTEM_UPDATING)
        self._feed.begin()
        wanted = {
            deployment
            for endpoint in endpoints
            for deployment in (endpoint.deployment_id, endpoint.target_deployment_id)
        }
        self._remove(state for state in self._states if state.spec.deployment_id not in wanted)
        self._workshop.discard_all_but(self._states.ids())
        for endpoint in endpoints:
            self.wake(endpoint.account_id, endpoint.name)

    # --- one endpoint ---------------------------------------------------------------------------------

    async def _work(self, key: Key) -> None:
        while True:
            self._again.discard(key)
            try:
                await self._step(key)
            except LauncherError:
                raise
            except Exception:
                logger.exception("endpoint %s: a step failed and is tried again", key[1])
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if key not in self._again:
                return

    async def _step(self, key: Key) -> None:
        endpoint = await self._store.get(Endpoint, *key)
        if endpoint is None:
            return
        if endpoint.status in _DEPLOYING:
            await self._deploy(endpoint)
        elif endpoint.status is EndpointStatus.DELETING:
            await self._delete(endpoint)
        elif endpoint.status in _SERVING and endpoint.deployed is not None:
            await self._restore(endpoint)

    async def _deploy(self, endpoint: Endpoint) -> None:
        """Bring in the target deployment, or say why it cannot be."""
        deployment_id = endpoint.target_deployment_id
        assert deployment_id is not None
        try:
            plan = await plan_deployment(self._store, endpoint)
            await self._ensure_fleet(endpoint, plan, deployment_id, keep_trying=False)
            await self._wait_until_healthy(deployment_id, plan)
        except DeploymentFailed as failure:
            await self._fail(endpoint, str(failure))
            return
        await self._enter_service(
            endpoint,
            EndpointChanges(
                status=EndpointStatus.IN_SERVICE,
                endpoint_config_name=endpoint.target_config_name or endpoint.endpoint_config_name,
                deployment_id=deployment_id,
                target_config_name=None,
                target_deployment_id=None,
                failure_reason=None,
                deployed=plan.to_document(resolution_time=time.time()),
            ),
        )

    async def _enter_service(self, endpoint: Endpoint, changes: EndpointChanges) -> None:
        """Publish first, then say so: a client that reads InService must find the endpoint."""
        self._publish(replace(endpoint, **changes))
        await self._feed.synced()
        updated = await self._store.transition(endpoint, _DEPLOYING, **changes)
        if updated is None:
            self._withdraw(endpoint)
            return
        topics = _plan_in_service(updated).topics
        if topics:
            await self._backlog.announce(updated.account_id, topics)
        before = endpoint.deployed and DeploymentPlan.from_document(endpoint.deployed)
        self._remove(
            (
                state
                for state in self._states.of_endpoint(updated.account_id, updated.name)
                if state.spec.deployment_id != updated.deployment_id
            ),
            drain_seconds=_LONGEST_ASYNC_INVOCATION_SECONDS
            if before and before.async_inference_config
            else None,
        )

    def _withdraw(self, endpoint: Endpoint) -> None:
        """Take back a route: the row is no longer what it was made from."""
        if endpoint.deployed is not None:
            self._publish(endpoint)
        else:
            self._serving.pop((endpoint.account_id, endpoint.name), None)
            self._feed.remove(endpoint.account_id, endpoint.name)

    async def _fail(self, endpoint: Endpoint, reason: str) -> None:
        """A failed creation leaves a Failed endpoint; a failed update leaves the old deployment InService."""
        logger.warning("endpoint %s: deployment failed: %s", endpoint.name, reason)
        status = EndpointStatus.FAILED
        if endpoint.deployment_id is not None:
            status = EndpointStatus.IN_SERVICE
        await self._store.transition(
            endpoint,
            _DEPLOYING,
            status=status,
            failure_reason=reason[:_LONGEST_REASON],
            target_config_name=None,
            target_deployment_id=None,
        )
        self._remove(
            state
            for state in self._states.of_endpoint(endpoint.account_id, endpoint.name)
            if state.spec.deployment_id == endpoint.target_deployment_id
        )

    async def _restore(self, endpoint: Endpoint) -> None:
        """See that the fleet in service is whole; it is not after a restart of the machine."""
        assert endpoint.deployed is not None
        assert endpoint.deployment_id is not None
        plan = DeploymentPlan.from_document(endpoint.deployed)
        if not self._missing(plan, endpoint.deployment_id) and endpoint.status is EndpointStatus.IN_SERVICE:
            return
        current = await self._store.transition(endpoint, _SERVING, status=EndpointStatus.SYSTEM_UPDATING)
        if current is None:
            return
        self._publish(current)
        try:
            await self._ensure_fleet(current, plan, endpoint.deployment_id, keep_trying=True)
        except DeploymentFailed as failure:
            await self._store.transition(current, _SERVING, failure_reason=str(failure)[:_LONGEST_REASON])
            logger.warning("endpoint %s cannot be restored yet: %s", endpoint.name, failure)
            await asyncio.sleep(_RETRY_SECONDS)
            self._again.add((endpoint.account_id, endpoint.name))
            return
        if not await self._healthy_unless_woken(current, plan):
            return
        await self._feed.synced()
        restored = await self._store.transition(
            current, _SERVING, status=EndpointStatus.IN_SERVICE, failure_reason=None
        )
        if restored is not None:
            self._publish(restored)

    async def _delete(self, endpoint: Endpoint) -> None:
        key = (endpoint.account_id, endpoint.name)
        self._serving.pop(key, None)
        self._feed.remove(*key)
        states = self._states.of_endpoint(*key)
        self._remove(states)
        await asyncio.gather(*{self._removals[state.spec.instance_id] for state in states})
        await self._backlog.fail_all(
            *key, f"Endpoint {endpoint.name} was deleted before this invocation was complete."
        )
        await self._store.delete(endpoint)

    # --- fleets ---------------------------------------------------------------------------------------

    def _is_whole(self, endpoint: Endpoint) -> bool:
        assert endpoint.deployment_id is not None
        return not self._missing(_plan_in_service(endpoint), endpoint.deployment_id)

    def _missing(self, plan: DeploymentPlan, deployment_id: str) -> list[int]:
        """For each instance that the plan wants and that is not there, the index of its variant."""
        there = Counter(
            state.spec.variant_name
            for state in self._states.of_deployment(deployment_id)
            if state.status not in (*_GONE, InstanceStatus.FAILED)
        )
        return [
            index
            for index, variant in enumerate(plan.variants)
            for _ in range(variant.instance_count - there[variant.name])
        ]

    async def _ensure_fleet(
        self, endpoint: Endpoint, plan: DeploymentPlan, deployment_id: str, *, keep_trying: bool
    ) -> None:
        """Launch what is missing of a deployment; returns before the instances are healthy.

        Raises:
            DeploymentFailed: an instance could not even be prepared.
        """

        async def launch(index: int) -> None:
            spec = await self._workshop.prepare(
                endpoint, plan.variants[index], deployment_id, keep_trying=keep_trying
            )
            await self._launcher.launch(spec)

        try:
            async with asyncio.TaskGroup() as tasks:
                for index in self._missing(plan, deployment_id):
                    tasks.create_task(launch(index), name=f"launch for {endpoint.name}")
        except* DeploymentFailed as failures:
            raise _first(failures) from None

    async def _wait_until_healthy(self, deployment_id: str, plan: DeploymentPlan) -> None:
        """Raises `DeploymentFailed` as soon as one instance of the deployment has failed."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_healthy(deployment_id, plan))

    async def _healthy_unless_woken(self, endpoint: Endpoint, plan: DeploymentPlan) -> bool:
        """Wait for the fleet; give up when the row changes (a wake), since it may want something else now."""
        assert endpoint.deployment_id is not None
        deployment_id, key = endpoint.deployment_id, (endpoint.account_id, endpoint.name)
        while key not in self._again:
            if self._is_healthy(deployment_id, plan):
                return True
            async with self._changed:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), timeout=0.5)
        return False

    def _is_healthy(self, deployment_id: str, plan: DeploymentPlan) -> bool:
        healthy = 0
        for state in self._states.of_deployment(deployment_id):
            if state.status is InstanceStatus.FAILED:
                raise DeploymentFailed(state.failure or f"Instance {state.spec.instance_id} failed.")
            healthy += state.status is InstanceStatus.IN_SERVICE
        return healthy >= sum(variant.instance_count for variant in plan.variants)

    def _remove(self, states: Iterable[InstanceState], *, drain_seconds: float | None = None) -> None:
        """Drain and stop instances that no published route names, without waiting for it. `drain_seconds` is how
        long they may take at most, unless the settings say more."""
        limit = max(self._settings.drain_timeout_seconds, drain_seconds or 0.0)
        ids = [state.spec.instance_id for state in states if state.spec.instance_id not in self._removals]
        if ids and self._tasks is not None:
            removal = self._tasks.create_task(self._drain_and_stop(ids, limit), name="remove instances")
            for instance_id in ids:
                self._removals[instance_id] = removal
            removal.add_done_callback(lambda _: [self._removals.pop(each, None) for each in ids])

    async def _drain_and_stop(self, instance_ids: Sequence[str], limit: float) -> None:
        if not await self._feed.drained(instance_ids, timeout_seconds=limit):
            logger.warning("instances %s are stopped with invocations inside", ", ".join(instance_ids))

        async def stop(instance_id: str) -> None:
            await self._launcher.stop(instance_id)
            self._workshop.discard(instance_id)

        await asyncio.gather(*(stop(instance_id) for instance_id in instance_ids))

    # --- routes ---------------------------------------------------------------------------------------

    def _publish(self, endpoint: Endpoint) -> None:
        """Tell the gateways where the deployment in service can be reached now."""
        assert endpoint.deployed is not None
        assert endpoint.deployment_id is not None
        self._serving[endpoint.account_id, endpoint.name] = endpoint
        plan = DeploymentPlan.from_document(endpoint.deployed)
        reachable = [
            state
            for state in self._states.of_deployment(endpoint.deployment_id)
            if state.status is InstanceStatus.IN_SERVICE
        ]
        variants = [
            {
                "name": variant.name,
                "weight": variant.weight,
                "container_hostname": variant.container_hostname,
                "instances": [
                    {
                        "instance_id": state.spec.instance_id,
                        "host": state.host,
                        "port": state.port,
                        "generation": state.generation,
                    }
                    for state in reachable
                    if state.spec.variant_name == variant.name
                ],
            }
            for variant in plan.variants
        ]
        self._feed.put(
            route_document(
                account_id=endpoint.account_id,
                name=endpoint.name,
                region=self._settings.region,
                variants=variants,
                asynchronous=plan.async_inference_config is not None,
                max_concurrency=self._max_concurrency(plan),
                provisioning=endpoint.status is EndpointStatus.SYSTEM_UPDATING
                or bool(self._missing(plan, endpoint.deployment_id)),
            )
        )

    def _max_concurrency(self, plan: DeploymentPlan) -> int:
        config = plan.async_inference_config or {}
        default = self._settings.async_concurrency
        return int(config.get("ClientConfig", {}).get("MaxConcurrentInvocationsPerInstance", default))


def _plan_in_service(endpoint: Endpoint) -> DeploymentPlan:
    assert endpoint.deployed is not None
    return DeploymentPlan.from_document(endpoint.deployed)


def _first(group: BaseExceptionGroup[DeploymentFailed]) -> DeploymentFailed:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, DeploymentFailed)
    return error
