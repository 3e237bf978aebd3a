"""Makes endpoints be what their rows say: starts, swaps and stops fleets of instances, and publishes routes.

One worker per endpoint that has something to do, woken by operations and at start-up. A worker reads the row and
takes the step that its status asks for; every step ends in a compare-and-set of the row, so a controller that dies in
the middle is simply followed by another that reads the row again. What instances there are is the launcher's to say:
the first item of its `watch` lists those that outlived the controller, and they are taken over.

    Creating / Updating   start the target fleet; all healthy: publish, then InService; one failed: stop them all
    InService             after a restart: make up for instances that are missing (SystemUpdating meanwhile)
    Deleting              withdraw the route, drain, stop, delete the row

An instance that is no part of a fleet in service or on its way in is drained and stopped.

What fails is tried again after a pause that grows, by the rule in `retries`; a change of the row ends the pause. A
row is written, a route published and a line logged only when that changes something: there may be thousands of
endpoints whose models are gone. A deletion ends the step that is under way.
"""

import asyncio
import logging
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from moorage.config import Settings
from moorage.controller.feed import Feed
from moorage.controller.fleet import DeploymentFailed, DeploymentPlan, InstanceWorkshop, plan_deployment
from moorage.controller.instance_states import InstanceStates
from moorage.controller.retries import Repetitions, pause_before_retry
from moorage.launchers.base import (
    InstanceSpec,
    InstanceState,
    InstanceStatus,
    Launcher,
    LauncherError,
    LauncherUnavailable,
)
from moorage.resources import Endpoint, EndpointStatus
from moorage.routing.table import route_document
from moorage.storage.base import EndpointChanges, ResourceStore
from moorage.storage.failures import DatabaseUnavailable

_DEPLOYING = (EndpointStatus.CREATING, EndpointStatus.UPDATING)
_SERVING = (EndpointStatus.IN_SERVICE, EndpointStatus.SYSTEM_UPDATING)
_GONE = (InstanceStatus.STOPPING, InstanceStatus.STOPPED)
_LONGEST_REASON = 1024
_LONGEST_ASYNC_INVOCATION_SECONDS = 3600.0
"""The most that InvocationTimeoutSeconds may be. What an update replaces finishes what it has begun."""
_NOTES_AT_ONCE = 4
"""Writes of why an endpoint cannot be restored: a thousand would keep operations from the database for seconds."""
_INSTANCE_ID = re.compile(r"\bi-[0-9a-f]{17}\b")
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
        chance: Callable[[], float] = random.random,
        pause: Callable[[int, int, float], float] = pause_before_retry,
    ) -> None:
        self._settings = settings
        self._store = store
        self._launcher = launcher
        self._feed = feed
        self._workshop = workshop
        self._backlog = backlog
        self._states = InstanceStates()
        self._chance = chance
        self._pause_before_retry = pause
        self._faults = Repetitions()
        self._serving: dict[Key, Endpoint] = {}
        """The endpoints whose route is published, as they were when it was."""
        self._workers: dict[Key, asyncio.Task[None]] = {}
        self._again: set[Key] = set()
        self._woken: dict[Key, asyncio.Event] = {}
        """Of each worker: its endpoint's row has changed."""
        self._news: dict[Key, asyncio.Event] = {}
        """Of each worker that waits for its fleet: an instance of it, or the row, has changed."""
        self._pausing = 0
        self._notes = asyncio.Semaphore(_NOTES_AT_ONCE)
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
            except* DatabaseUnavailable:
                pass  # which has been told
            await asyncio.sleep(0.2)

    def wake(self, account_id: str, endpoint_name: str) -> None:
        """An endpoint's row has changed."""
        key = (account_id, endpoint_name)
        if key in self._workers:
            self._again.add(key)
            self._woken[key].set()
            self._tell_news(key)
        elif self._tasks is not None:
            work = self._work(key)
            try:
                worker = self._tasks.create_task(work, name=f"reconcile {endpoint_name}")
            except RuntimeError:  # the launcher went away: everything is woken when it is back
                work.close()
                return
            self._workers[key] = worker
            self._woken[key] = asyncio.Event()
            worker.add_done_callback(lambda _: self._on_worker_done(key))

    def _on_worker_done(self, key: Key) -> None:
        del self._workers[key], self._woken[key]
        self._news.pop(key, None)
        if key in self._again:  # woken when it had looked for the last time
            self._again.discard(key)
            self.wake(*key)

    def instance_counts(self, account_id: str, endpoint_name: str) -> Mapping[str, int]:
        """The instances in service now, by variant."""
        return Counter(
            state.spec.variant_name
            for state in self._states.of_endpoint(account_id, endpoint_name)
            if state.status is InstanceStatus.IN_SERVICE
        )

    def instance_specs(self) -> Collection[InstanceSpec]:
        """The instances that there are, or that are about to be launched."""
        return [state.spec for state in self._states]

    def instance(self, instance_id: str) -> InstanceState | None:
        """The instance of that id, if there is one."""
        return self._states.find(instance_id)

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
        raise LauncherError("it ended its reports")

    def _take_in(self, states: Sequence[InstanceState]) -> None:
        for key in {self._states.take_in(state) for state in states}:
            if key in self._serving:
                self._publish(self._serving[key])
            self._tell_news(key)

    def _tell_news(self, key: Key) -> None:
        news = self._news.get(key)
        if news is not None:
            news.set()

    async def _recover(self) -> None:
        """After a start: publish what is in service, resume what was under way, stop what belongs to nothing."""
        endpoints = await self._store.all_endpoints()
        for endpoint in endpoints:
            if endpoint.deployment_id is not None and endpoint.status is not EndpointStatus.DELETING:
                self._publish(endpoint)
        for endpoint in endpoints:
            # Said before anyone can ask: a client that reads InService must find instances.
            if endpoint.status is EndpointStatus.IN_SERVICE and not self._is_whole(endpoint):
                changed = await self._store.transition(
                    endpoint, _SERVING, status=EndpointStatus.SYSTEM_UPDATING
                )
                if changed is not None:
                    self._publish(changed)
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
            await asyncio.sleep(0)  # thousands at once would keep the loop from everyone else for a second

    # --- one endpoint ---------------------------------------------------------------------------------

    async def _work(self, key: Key) -> None:
        failures = 0
        while True:
            self._again.discard(key)
            self._woken[key].clear()
            try:
                endpoint = await self._store.get(Endpoint, *key)
                if endpoint is None:
                    return
                await self._step_until_deleted(endpoint)
            except LauncherError:
                raise
            except Exception as error:
                if not isinstance(error, DeploymentFailed | DatabaseUnavailable):  # which have been told
                    self._tell(key, error)
                failures += 1
                if await self._pause(key, failures):
                    failures = 0
                continue
            if key not in self._again:
                return

    def _tell(self, key: Key, error: Exception) -> None:
        """Log a fault, unless the same one has been logged for any endpoint within a minute."""
        text = _INSTANCE_ID.sub("i-…", f"{type(error).__name__}: {error}")
        if self._faults.is_new(text, time.monotonic()):
            logger.error("endpoint %s: a step failed and is tried again: %s", key[1], error, exc_info=error)

    async def _pause(self, key: Key, failures: int) -> bool:
        """Wait before the next attempt. Returns whether a change of the row has ended the pause."""
        self._pausing += 1
        try:
            async with asyncio.timeout(self._pause_before_retry(failures, self._pausing, self._chance())):
                await self._woken[key].wait()
        except TimeoutError:
            return False
        finally:
            self._pausing -= 1
        return True

    async def _step_until_deleted(self, endpoint: Endpoint) -> None:
        """Take a step, and end it in the middle when the endpoint is to be deleted instead."""
        key = (endpoint.account_id, endpoint.name)
        if endpoint.status is EndpointStatus.DELETING:
            await self._delete(endpoint)
            return
        step = asyncio.create_task(self._step(endpoint), name=f"step of {endpoint.name}")
        woken = self._woken[key]
        try:
            while not await _done_before(step, woken):
                woken.clear()
                now = await self._store.get(Endpoint, *key)
                if now is None or now.status is EndpointStatus.DELETING:
                    return
            await step
        finally:
            step.cancel()
            await asyncio.gather(step, return_exceptions=True)

    async def _step(self, endpoint: Endpoint) -> None:
        if endpoint.status in _DEPLOYING:
            await self._deploy(endpoint)
        elif endpoint.status in _SERVING and endpoint.deployed is not None:
            await self._restore(endpoint)

    async def _deploy(self, endpoint: Endpoint) -> None:
        """Bring in the target deployment, or say why it cannot be."""
        deployment_id = endpoint.target_deployment_id
        assert deployment_id is not None
        try:
            plan = await plan_deployment(self._store, endpoint)
            await self._ensure_fleet(endpoint, plan, deployment_id, keep_trying=False)
            await self._healthy(endpoint, plan, deployment_id)
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
        """See that the fleet in service is whole; it is not after a restart of the machine.

        Raises:
            DeploymentFailed: it cannot be made whole now. The row and the log say so.
        """
        assert endpoint.deployed is not None
        assert endpoint.deployment_id is not None
        plan = DeploymentPlan.from_document(endpoint.deployed)
        current = endpoint
        if endpoint.status is EndpointStatus.IN_SERVICE:
            if not self._missing(plan, endpoint.deployment_id):
                return
            changed = await self._store.transition(endpoint, _SERVING, status=EndpointStatus.SYSTEM_UPDATING)
            if changed is None:
                return
            current = changed
            self._publish(current)
        try:
            await self._ensure_fleet(current, plan, endpoint.deployment_id, keep_trying=True)
            if not await self._healthy(current, plan, endpoint.deployment_id, unless_woken=True):
                return
        except DeploymentFailed as failure:
            await self._note_failure(current, str(failure)[:_LONGEST_REASON])
            raise
        await self._feed.synced()
        restored = await self._store.transition(
            current, _SERVING, status=EndpointStatus.IN_SERVICE, failure_reason=None
        )
        if restored is not None:
            self._publish(restored)

    async def _note_failure(self, endpoint: Endpoint, reason: str) -> None:
        """Say why an endpoint cannot be restored, if that is not what was said last; instances that failed go."""
        self._remove(
            state
            for state in self._states.of_endpoint(endpoint.account_id, endpoint.name)
            if state.status is InstanceStatus.FAILED
        )
        if _INSTANCE_ID.sub("", reason) != _INSTANCE_ID.sub("", endpoint.failure_reason or ""):
            async with self._notes:
                await self._store.transition(endpoint, _SERVING, failure_reason=reason)
            logger.warning("endpoint %s cannot be restored yet: %s", endpoint.name, reason)

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
            # Known before the launcher tells of it, so that whoever is next neither launches another nor forgets it.
            starting = InstanceState(spec=spec, status=InstanceStatus.STARTING)
            self._states.take_in(starting)
            try:
                await _to_its_end(self._launcher.launch(spec))
            except LauncherUnavailable:
                raise  # it may have been launched or not: the launcher will tell
            except LauncherError:
                self._states.take_in(replace(starting, status=InstanceStatus.STOPPED))
                self._workshop.discard(spec.instance_id)
                raise

        try:
            async with asyncio.TaskGroup() as tasks:
                for index in self._missing(plan, deployment_id):
                    tasks.create_task(launch(index), name=f"launch for {endpoint.name}")
        except* DeploymentFailed as failures:
            raise _first(failures) from None

    async def _healthy(
        self, endpoint: Endpoint, plan: DeploymentPlan, deployment_id: str, *, unless_woken: bool = False
    ) -> bool:
        """Wait for the fleet of a deployment. With `unless_woken`, give up when the row changes, since it may want
        something else now: False.

        Raises:
            DeploymentFailed: one instance of the deployment has failed.
        """
        key = (endpoint.account_id, endpoint.name)
        news = self._news[key] = asyncio.Event()
        while not self._is_healthy(deployment_id, plan):
            if unless_woken and key in self._again:
                return False
            await news.wait()
            news.clear()
        return True

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
                        "network": state.network,
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


async def _done_before(step: "asyncio.Task[None]", event: asyncio.Event) -> bool:
    """Wait for a task to end or an event to come; True when the task has ended."""
    coming = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({step, coming}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        coming.cancel()
    return step.done()


async def _to_its_end(work: Coroutine[None, None, None]) -> None:
    """Await something that is not cancelled in the middle: who is cancelled meanwhile is so when it has ended."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


def _first(group: BaseExceptionGroup[DeploymentFailed]) -> DeploymentFailed:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, DeploymentFailed)
    return error
