"""CloudWatch Logs, as far as SDKs read an endpoint's logs there: FilterLogEvents and GetLogEvents.

The log group of an endpoint is `/aws/sagemaker/Endpoints/<name>`, a stream of it `<variant>/<instance id>`: the log
of an instance. A line of a container bears no time, so an event has the time of the last line of our own before it.
Of an endpoint that was deleted and created anew, the logs are those of the new one.
"""

import heapq
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from moorage.controller.log_files import (
    MAX_PIECE_BYTES,
    LogDirectories,
    LogPiece,
    Place,
    in_thread,
    logs_in,
    read_log,
)
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
_MOST_BYTES = 8 * 1024 * 1024
_LEAST_BYTES = 64 * 1024
"""Of all streams that a call reads, and of each of them."""
_MOST_EVENTS = 10_000

Members = Mapping[str, Any]
Output = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LogEvent:
    """A line. Its `number` orders those of a stream, its `place` finds it again."""

    time: int
    stream: str
    number: int
    place: Place
    message: str

    @property
    def key(self) -> tuple[int, str, int]:
        return self.time, self.stream, self.number


Streams = Mapping[str, LogPiece]


class LogEvents:
    """The two operations, on the logs of all endpoints."""

    def __init__(self, directories: LogDirectories, permissions: Permissions, *, region: str) -> None:
        self._directories = directories
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

        streams = await self._streams(requester, group, is_asked_for, members)
        after = _after(members["nextToken"], streams) if "nextToken" in members else None
        limit = members.get("limit", _MOST_EVENTS)

        def next_events() -> list[LogEvent]:
            following = (event for event in _events(streams, members) if after is None or event.key > after)
            return heapq.nsmallest(limit + 1, following, key=lambda event: event.key)

        rest = await in_thread(next_events)
        shown = rest[:limit]
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
        streams = await self._streams(requester, group, lambda name: name == stream, members)
        found = await in_thread(lambda: list(_events(streams, members)))
        limit = members.get("limit", _MOST_EVENTS)
        direction, place = _side(members["nextToken"]) if "nextToken" in members else ("", Place(0, 0))
        number = streams[stream].number(place)
        if direction == "f" or (not direction and members.get("startFromHead")):
            shown = [event for event in found if event.number >= number][:limit]
        else:
            shown = [event for event in found if not direction or event.number < number][-limit:]
        first = shown[0].place if shown else place
        last = shown[-1].place._replace(offset=shown[-1].place.offset + 1) if shown else place
        return {
            "events": [_described(event) for event in shown],
            "nextForwardToken": f"f/{last.file}-{last.offset}",
            "nextBackwardToken": f"b/{first.file}-{first.offset}",
        }

    async def _allow(self, requester: Requester, action: str, resource: str) -> None:
        arn = f"arn:aws:logs:{self._region}:{requester.account_id}:log-group:{resource}"
        await self._permissions.check(requester, action, arn)

    async def _streams(
        self, requester: Requester, group: str, is_asked_for: Callable[[str], bool], members: Members
    ) -> Streams:
        """The end of each log that is asked for. The more there are, the less is read of each."""
        endpoint = _GROUP.fullmatch(group)
        directory = await self._directories.find(requester.account_id, endpoint[1]) if endpoint else None
        logs = {} if directory is None else await in_thread(logs_in, directory)
        if directory is None or not logs:
            raise LogGroupNotFound("The specified log group does not exist.")
        wanted = {str(log): log for log in logs if is_asked_for(str(log))}
        if "logStreamName" in members and not wanted:
            raise LogGroupNotFound("The specified log stream does not exist.")
        share = max(_LEAST_BYTES, min(MAX_PIECE_BYTES, _MOST_BYTES // max(1, len(wanted))))
        return {
            stream: await in_thread(read_log, directory, log, max_bytes=share)
            for stream, log in sorted(wanted.items())
        }


def _group(members: Members) -> str:
    """The name of the log group, which may be given by its ARN."""
    name, identifier = members.get("logGroupName"), members.get("logGroupIdentifier")
    if (name is None) is (identifier is None):
        raise InvalidParameterException("One of logGroupName and logGroupIdentifier is needed.")
    return str(name or identifier).rpartition(":log-group:")[2]


def _events(streams: Streams, members: Members) -> Iterator[LogEvent]:
    """Between startTime and endTime, each stream's in its order."""
    begin, end = members.get("startTime", 0), members.get("endTime")
    for stream, piece in streams.items():
        stamps = (own for line in piece.lines if (own := _OWN_LINE.match(line.text)))
        first = next(stamps, None)
        time = _milliseconds(first[1]) if first else int(piece.modified * 1000)
        for line in piece.lines:
            own = _OWN_LINE.match(line.text)
            if own:
                time = _milliseconds(own[1])
            if line.text and begin <= time and (end is None or time < end):
                yield LogEvent(time, stream, line.number, line.place, line.text.decode("utf-8", "replace"))


def _milliseconds(stamp: bytes) -> int:
    return int(datetime.fromisoformat(stamp.decode()).timestamp() * 1000)


def _described(event: LogEvent) -> Output:
    return {"timestamp": event.time, "message": event.message, "ingestionTime": event.time}


def _token(event: LogEvent) -> str:
    place = event.place
    return urlsafe_b64encode(f"{event.time}/{place.file}-{place.offset}/{event.stream}".encode()).decode()


def _after(token: str, streams: Streams) -> tuple[int, str, int]:
    try:
        time, place, stream = urlsafe_b64decode(token).decode().split("/", 2)
        file, offset = place.split("-")
        piece = streams.get(stream)
        return int(time), stream, piece.number(Place(int(file), int(offset))) if piece else 0
    except ValueError:
        raise InvalidParameterException("The specified nextToken is invalid.") from None


def _side(token: str) -> tuple[str, Place]:
    matched = re.fullmatch(r"([fb])/(\d{1,20})-(\d{1,18})", token, re.ASCII)
    if matched is None:
        raise InvalidParameterException("The specified nextToken is invalid.")
    return matched[1], Place(int(matched[2]), int(matched[3]))
