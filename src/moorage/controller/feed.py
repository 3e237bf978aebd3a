"""The controller's end of the feed: routes out to every gateway, word of drained instances back.

The lines are described in `moorage.gateway.feed`. A gateway that connects gets the whole table; a gateway that dies
has nothing inside any instance any more. So an instance is drained when as many gateways as there are meant to be
have said so: one that is not connected may be on its way back, from its own restart or from the controller's.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from moorage.controller.observations import Observations

logger = logging.getLogger(__name__)

Route = Mapping[str, Any]
_LONGEST_LINE = 16 * 1024 * 1024


class _Gateway:
    """One connected gateway: what it has been sent and has answered."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.synced = 0
        self.drained: set[str] = set()  # what it reported of the instances that are waited for

    def close(self) -> None:
        self._writer.close()

    def send(self, message: Mapping[str, Any]) -> None:
        self._writer.write(_line(message))

    def write(self, lines: Iterable[bytes]) -> None:
        self._writer.writelines(lines)


class _Identities:
    """What the gateways know of who may call, as lines that are ready to be sent: gateways connect at once, and one
    identity after the other changes, however many there are."""

    def __init__(self) -> None:
        self._revision: int | None = None
        self._values: dict[tuple[str, str], Any] = {}
        self._lines: dict[tuple[str, str], bytes] = {}

    def replace(self, snapshot: Mapping[str, Any]) -> None:
        self._values.clear()
        self._lines.clear()
        self._take(snapshot)
        self._revision = 0 if self._revision is None else self._revision + 1

    def change(self, difference: Mapping[str, Any]) -> bytes | None:
        """What to tell the gateways; None if nothing is new."""
        assert self._revision is not None, "a snapshot comes first"
        new = self._take(difference)
        if not any(new.values()):
            return None
        self._revision += 1
        return _line({"identities": {"revision": self._revision, "change": new}})

    def whole(self) -> Iterator[bytes]:
        if self._revision is not None:
            yield _line({"identities": {"begin": self._revision}})
            yield from self._lines.values()
            yield _line({"identities": {"complete": self._revision}})

    def _take(self, difference: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """What of it is new."""
        new: dict[str, dict[str, Any]] = {"policies": {}, "identities": {}}
        for what, known in new.items():
            for key, value in difference[what].items():
                if self._values.get((what, key)) == value:
                    continue
                known[key] = value
                if value is None:
                    del self._values[what, key], self._lines[what, key]
                else:
                    piece = {"policies": {}, "identities": {}, what: {key: value}}
                    self._values[what, key] = value
                    self._lines[what, key] = _line({"identities": {"piece": piece}})
        return new


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


class Feed:
    """Publishes routes to the gateways, of which there are meant to be `gateways`. What they observe comes together
    in `observations`."""

    def __init__(self, *, gateways: int = 0) -> None:
        self.observations = Observations()
        self._expected = gateways
        self._routes: dict[tuple[str, str], Route] = {}
        self._gateways: set[_Gateway] = set()
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._syncs = 0
        self._awaited: set[str] = set()
        self._complete = False
        self._announced: dict[str, Mapping[str, Any]] = {}
        self._identities = _Identities()
        self._endpoint_tags: dict[str, Mapping[str, str]] = {}

    def __repr__(self) -> str:
        return f"<Feed {len(self._routes)} routes, {len(self._gateways)} gateways>"

    async def listen(self, path: Path) -> None:
        """Let gateways connect; a socket left over by an earlier run is replaced."""
        self._server = await asyncio.start_unix_server(self._serve, path, limit=_LONGEST_LINE)

    def close(self) -> None:
        """Hang up on every gateway; each keeps its table."""
        if self._server is not None:
            self._server.close()
        for gateway in self._gateways:
            gateway.close()

    def publish_identities(self, snapshot: Mapping[str, Any]) -> None:
        """Tell every gateway, and those that connect later, who may call and what they may do."""
        self._identities.replace(snapshot)
        for gateway in self._gateways:
            gateway.write(self._identities.whole())

    def change_identities(self, difference: Mapping[str, Any]) -> None:
        """The same of what has changed since."""
        if (line := self._identities.change(difference)) is not None:
            for gateway in self._gateways:
                gateway.write([line])

    def publish_policies(self, documents: Mapping[str, str]) -> None:
        """The same of the policies of endpoints, by ARN."""
        self._announce("policies", documents)

    def publish_bucket_policies(self, buckets: Mapping[str, Mapping[str, str]]) -> None:
        """The same of the policies of buckets, by the bucket's name: its `account_id` and the `document`."""
        self._announce("bucket_policies", buckets)

    def change_endpoint_tags(self, tags: Mapping[str, Mapping[str, str] | None]) -> None:
        """Tell every gateway, and those that connect later, the tags of these endpoints, by ARN. One without any, or
        that is no more, has none."""
        change = {
            arn: each or None for arn, each in tags.items() if self._endpoint_tags.get(arn) != (each or None)
        }
        for arn, each in change.items():
            if each is None:
                del self._endpoint_tags[arn]
            else:
                self._endpoint_tags[arn] = each
        if change:
            for gateway in self._gateways:
                gateway.send({"endpoint_tags": {"whole": False, "tags": change}})

    def publish_control_plane(self, state: Mapping[str, Any]) -> None:
        """Tell every gateway how the control plane does."""
        self._announce("control_plane", state)

    def _announce(self, what: str, value: Mapping[str, Any]) -> None:
        if self._announced.get(what) != value:
            self._announced[what] = value
            for gateway in self._gateways:
                gateway.send({what: value})

    def begin(self) -> None:
        """All routes known at start-up have been put: gateways may have the table, which is whole from now on."""
        self._complete = True
        for gateway in self._gateways:
            self._send_all(gateway)

    def put(self, route: Route) -> None:
        key = (route["account_id"], route["name"])
        if self._routes.get(key) != route:
            self._routes[key] = route
            self.observations.expect(*key, [variant["name"] for variant in route["variants"]])
            self._send({"put": route})

    def remove(self, account_id: str, name: str) -> None:
        if self._routes.pop((account_id, name), None) is not None:
            self.observations.forget_endpoint(account_id, name)
            self._send({"remove": [account_id, name]})

    async def synced(self, *, timeout_seconds: float = 5.0) -> None:
        """Return once every gateway has taken in all that was published so far (or is too slow to wait for)."""
        self._syncs += 1
        turn = self._syncs
        self._send({"sync": turn})
        await self._until(lambda gateway: gateway.synced >= turn, timeout_seconds)

    async def drained(self, instance_ids: Collection[str], *, timeout_seconds: float) -> bool:
        """Return once nothing is inside these instances, which no route names any more.

        False when that took longer than the timeout.
        """
        wanted = set(instance_ids)
        self._awaited |= wanted
        try:
            self._send({"drain": list(wanted)})
            return await self._until(lambda gateway: wanted <= gateway.drained, timeout_seconds)
        finally:
            self._awaited -= wanted
            for gateway in self._gateways:
                gateway.drained -= wanted

    def _send_all(self, gateway: _Gateway) -> None:
        """The whole table, a route at a time."""
        gateway.send({"only": list(self._routes)})
        for route in self._routes.values():
            gateway.send({"put": route})
        gateway.send({"complete": True})

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._complete:
            for gateway in self._gateways:
                gateway.send(message)

    async def _until(self, condition: Callable[[_Gateway], bool], timeout_seconds: float) -> bool:
        try:
            async with asyncio.timeout(timeout_seconds), self._changed:
                await self._changed.wait_for(
                    lambda: len(self._gateways) >= self._expected and all(map(condition, self._gateways))
                )
        except TimeoutError:
            return False
        return True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gateway = _Gateway(writer)
        gateway.write(self._identities.whole())
        for what, value in self._announced.items():
            gateway.send({what: value})
        gateway.send({"endpoint_tags": {"whole": True, "tags": self._endpoint_tags}})
        if self._complete:
            self._send_all(gateway)
            gateway.send({"drain": list(self._awaited)})
            gateway.send({"sync": self._syncs})
        self._gateways.add(gateway)
        try:
            while line := await reader.readline():
                self._hear(gateway, json.loads(line))
                await self._notify()
        except OSError as error:
            logger.info("a gateway went away: %s", error)
        finally:
            self._gateways.discard(gateway)
            self.observations.forget_process(gateway)
            writer.close()
            await self._notify()

    def _hear(self, gateway: _Gateway, message: Mapping[str, Any]) -> None:
        if "synced" in message:
            gateway.synced = message["synced"]
        elif "drained" in message:
            gateway.drained |= {message["drained"]} & self._awaited
        else:
            self.observations.take_in(gateway, message)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
