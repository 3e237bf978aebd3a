"""CloudWatch Logs, as far as SDKs read an endpoint's logs there: FilterLogEvents and GetLogEvents.

The log group of an endpoint is `/aws/sagemaker/Endpoints/<name>`, a stream of it `<variant>/<instance id>`: the log
of an instance. A line of a container bears no time, so an event has the time of the last line of our own before it.
"""

import asyncio
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from moorage.controller.permissions import Permissions, Requester
from moorage.errors import (
    InvalidParameterException,
    LogGroupNotFound,
    UnknownOperationException,
    ValidationException,
)
from moorage.launchers.log_file import OWN_PREFIX
from moorage.wire import awsjson

TARGET_PREFIX = "Logs_20140328."

_GROUP = re.compile(r"/aws/sagemaker/Endpoints/([a-zA-Z0-9][a-zA-Z0-9-]{0,62})")
_OWN_LINE = re.compile(re.escape(OWN_PREFIX.encode()) + rb" (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) ")
_LONGEST_TAIL = 4 * 1024 * 1024
_MOST_EVENTS = 10_000

Members = Mapping[str, Any]
Output = dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class LogEvent:
    """A line. The order is that of events: `position` is where it begins in its log."""

    time: int
    stream: str
    position: int
    message: str

    @property
    def key(self) -> tuple[int, str, int]:
        return self.time, self.stream, self.position


class LogEvents:
    """The two operations, on the logs that `directory_of` names for an account and an endpoint."""

    def __init__(
        self, directory_of: Callable[[str, str], Path], permissions: Permissions, *, region: str
    ) -> None:
        self._directory_of = directory_of
        self._permissions = permissions
        self._region = region
        self._answers: Mapping[str, Callable[[Requester, Members], Awaitable[Output]]] = {
            "FilterLogEvents": self._filter_log_events,
            "GetLogEvents": self._get_log_events,
        }
        self._service = awsjson.load("logs", self._answers)

    async def answer(self, target: str, body: bytes, requester: Requester) -> bytes:
        """The body of the reply to a request with this X-Amz-Target."""
        name = target.removeprefix(TARGET_PREFIX)
        if name not in self._answers:
            raise UnknownOperationException(f"{target} is not an operation that this server knows.")
        operation = self._service.operations[name]
        members = awsjson.read(operation, body)
        try:
            awsjson.check(operation, members)
        except ValidationException as error:
            raise InvalidParameterException(error.message) from None
        return awsjson.render(operation, await self._answers[name](requester, members))

    async def _filter_log_events(self, requester: Requester, members: Members) -> Output:
        group = _group(members)
        await self._allow(requester, "logs:FilterLogEvents", f"{group}:log-stream:")
        if members.get("filterPattern"):
            raise InvalidParameterException("This server does not have filterPattern.")
        names, prefix = members.get("logStreamNames"), members.get("logStreamNamePrefix")
        if names and prefix:
            raise InvalidParameterException("logStreamNames and logStreamNamePrefix exclude each other.")

        def is_asked_for(stream: str) -> bool:
            return stream in names if names else stream.startswith(prefix or "")

        found = sorted(await self._events(requester, group, is_asked_for, members))
        after = _after(members["nextToken"]) if "nextToken" in members else None
        rest = [event for event in found if after is None or event.key > after]
        shown = rest[: members.get("limit", _MOST_EVENTS)]
        return {
            "events": [
                {**_described(event), "logStreamName": event.stream, "eventId": _token(event)}
                for event in shown
            ],
            "searchedLogStreams": [],
            "nextToken": _token(shown[-1]) if len(shown) < len(rest) else None,
        }

    async def _get_log_events(self, requester: Requester, members: Members) -> Output:
        """The newest events, or those on a token's side of where an earlier reply ended."""
        group, stream = _group(members), members["logStreamName"]
        await self._allow(requester, "logs:GetLogEvents", f"{group}:log-stream:{stream}")
        found = await self._events(requester, group, lambda name: name == stream, members)
        limit = members.get("limit", _MOST_EVENTS)
        direction, position = _side(members["nextToken"]) if "nextToken" in members else ("", 0)
        if direction == "f" or (not direction and members.get("startFromHead")):
            shown = [event for event in found if event.position >= position][:limit]
        else:
            shown = [event for event in found if not direction or event.position < position][-limit:]
        first = shown[0].position if shown else position
        last = shown[-1].position + 1 if shown else position
        return {
            "events": [_described(event) for event in shown],
            "nextForwardToken": f"f/{last}",
            "nextBackwardToken": f"b/{first}",
        }

    async def _allow(self, requester: Requester, action: str, resource: str) -> None:
        arn = f"arn:aws:logs:{self._region}:{requester.account_id}:log-group:{resource}"
        await self._permissions.check(requester, action, arn)

    async def _events(
        self, requester: Requester, group: str, is_asked_for: Callable[[str], bool], members: Members
    ) -> list[LogEvent]:
        """Between startTime and endTime, each stream's in its order."""
        endpoint = _GROUP.fullmatch(group)
        directory = self._directory_of(requester.account_id, endpoint[1]) if endpoint else None
        begin, end = members.get("startTime", 0), members.get("endTime")

        def read() -> list[LogEvent]:
            if directory is None or not directory.is_dir():
                raise LogGroupNotFound("The specified log group does not exist.")
            streams = {f"{path.parent.name}/{path.stem}": path for path in sorted(directory.glob("*/*.log"))}
            wanted = {name: path for name, path in streams.items() if is_asked_for(name)}
            if "logStreamName" in members and not wanted:
                raise LogGroupNotFound("The specified log stream does not exist.")
            return [
                event
                for name, path in wanted.items()
                for event in _read(path, name)
                if begin <= event.time and (end is None or event.time < end)
            ]

        return await asyncio.to_thread(read)


def _group(members: Members) -> str:
    """The name of the log group, which may be given by its ARN."""
    name, identifier = members.get("logGroupName"), members.get("logGroupIdentifier")
    if (name is None) is (identifier is None):
        raise InvalidParameterException("One of logGroupName and logGroupIdentifier is needed.")
    return str(name or identifier).rpartition(":log-group:")[2]


def _read(path: Path, stream: str) -> Iterator[LogEvent]:
    """The complete lines of a log, or of its end if it is long."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        position = file.seek(max(0, size - _LONGEST_TAIL))
        data = file.read(size - position)
    if position:
        skipped = data.find(b"\n") + 1
        data, position = data[skipped:], position + skipped
    first = _OWN_LINE.search(data)
    time = _milliseconds(first[1]) if first else int(path.stat().st_mtime * 1000)
    for line in data.split(b"\n")[:-1]:
        own = _OWN_LINE.match(line)
        if own:
            time = _milliseconds(own[1])
        if line:
            yield LogEvent(time, stream, position, line.decode("utf-8", "replace"))
        position += len(line) + 1


def _milliseconds(stamp: bytes) -> int:
    return int(datetime.fromisoformat(stamp.decode()).timestamp() * 1000)


def _described(event: LogEvent) -> Output:
    return {"timestamp": event.time, "message": event.message, "ingestionTime": event.time}


def _token(event: LogEvent) -> str:
    return urlsafe_b64encode(f"{event.time}/{event.position}/{event.stream}".encode()).decode()


def _after(token: str) -> tuple[int, str, int]:
    try:
        time, position, stream = urlsafe_b64decode(token).decode().split("/", 2)
        return int(time), stream, int(position)
    except ValueError:
        raise InvalidParameterException("The specified nextToken is invalid.") from None


def _side(token: str) -> tuple[str, int]:
    matched = re.fullmatch(r"([fb])/(\d{1,18})", token, re.ASCII)
    if matched is None:
        raise InvalidParameterException("The specified nextToken is invalid.")
    return matched[1], int(matched[2])
