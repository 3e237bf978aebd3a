"""A launcher that lives in another process of this machine: `LauncherServer` there, `RemoteLauncher` here.

They speak JSON, one value a line, over a Unix socket that only their user can reach:

    → {"id": 1, "call": "launch", "spec": {…}}       ← {"id": 1} or {"id": 1, "error": "…"}
    → {"id": 2, "call": "stop", "instance_id": "…", "hurry": false}
    → {"call": "watch"}                              ← {"states": […]} again and again, until the end

Calls share one connection and are answered in any order; each `watch` has a connection of its own. Nothing
that a client started ends with its connection.
"""

import asyncio
import dataclasses
import itertools
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from moorage.launchers.base import (
    InstanceSpec,
    InstanceState,
    InstanceStatus,
    Launcher,
    LauncherError,
    LauncherUnavailable,
)

_log = logging.getLogger(__name__)

_LONGEST_LINE: Final = 256 * 1024 * 1024
"""A line may hold the states of thousands of instances, each with up to 32 KB of environment."""

Message = dict[str, Any]


def encode_state(state: InstanceState) -> Message:
    return _fields(state) | {"spec": encode_spec(state.spec)}


def decode_state(message: Message) -> InstanceState:
    fields = message | {
        "spec": decode_spec(message["spec"]),
        "status": InstanceStatus(message["status"]),
        "log_tail": tuple(message["log_tail"]),
    }
    return InstanceState(**fields)


def encode_spec(spec: InstanceSpec) -> Message:
    return _fields(spec) | {"environment": dict(spec.environment)}


def decode_spec(message: Message) -> InstanceSpec:
    return InstanceSpec(**(message | {"argv": tuple(message["argv"])}))


def _fields(value: InstanceSpec | InstanceState) -> Message:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


class LauncherServer:
    """Offers a launcher on a Unix socket. It does not own the launcher: whoever made that closes it."""

    def __init__(self, launcher: Launcher, socket_path: Path) -> None:
        self._launcher = launcher
        self._socket_path = socket_path
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._calls: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<LauncherServer {self._socket_path} connections={len(self._connections)}>"

    async def start(self) -> None:
        """Listen. A socket left over from an earlier run is replaced."""
        directory = self._socket_path.parent
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        self._socket_path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(
            self._serve, self._socket_path, limit=_LONGEST_LINE, start_serving=False
        )
        self._socket_path.chmod(0o600)
        await self._server.start_serving()

    async def close(self) -> None:
        """Stop listening and hang up on everyone."""
        if self._server is None:
            return
        self._server.close()
        tasks = self._connections | self._calls
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._server.wait_closed()
        self._server = None
        self._socket_path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        watches: set[asyncio.Task[None]] = set()
        try:
            while line := await reader.readline():
                self._take(json.loads(line), writer, watches)
        except (ConnectionError, asyncio.CancelledError):
            pass  # a client that went away, or our own `close`: nobody is left to tell
        except Exception:
            _log.exception("a connection to the launcher ends because of a fault")
        finally:
            self._connections.discard(task)
            for watch in watches:
                watch.cancel()
            writer.close()

    def _take(self, message: Message, writer: asyncio.StreamWriter, watches: set[asyncio.Task[None]]) -> None:
        """Start what is asked for. A watch ends with the connection, a call does not."""
        if message["call"] == "watch":
            task = asyncio.create_task(self._stream_states(writer), name="launcher-watch")
            watches.add(task)
        else:
            task = asyncio.create_task(self._answer(message, writer), name=f"launcher-{message['call']}")
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _answer(self, message: Message, writer: asyncio.StreamWriter) -> None:
        reply: Message = {"id": message["id"]}
        try:
            await self._call(message)
        except LauncherError as error:
            reply["error"] = str(error)
        except Exception as error:
            _log.exception("the launcher's %s failed", message["call"])
            reply["error"] = f"{type(error).__name__}: {error}"
        await _send(writer, reply)

    async def _call(self, message: Message) -> None:
        match message["call"]:
            case "launch":
                await self._launcher.launch(decode_spec(message["spec"]))
            case "stop":
                await self._launcher.stop(message["instance_id"], hurry=message["hurry"])
            case other:
                raise LauncherError(f"a launcher has no call {other!r}")

    async def _stream_states(self, writer: asyncio.StreamWriter) -> None:
        async for states in self._launcher.watch():
            await _send(writer, {"states": [encode_state(state) for state in states]})
        await _send(writer, {"end": True})


class RemoteLauncher:
    """A launcher behind a `LauncherServer`; the seam is `moorage.launchers.base.Launcher`.

    Connects when it is used, and again after the connection was lost. Every method raises
    `LauncherUnavailable` if the server cannot be reached or goes away meanwhile; what was asked for may then
    have happened or not, and may be asked for again.
    """

    def __init__(self, socket_path: Path) -> None:
        self._socket_path = socket_path
        self._channel: _Channel | None = None
        self._connecting = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<RemoteLauncher {self._socket_path}>"

    async def launch(self, spec: InstanceSpec) -> None:
        await self._call({"call": "launch", "spec": encode_spec(spec)})

    async def stop(self, instance_id: str, *, hurry: bool = False) -> None:
        await self._call({"call": "stop", "instance_id": instance_id, "hurry": hurry})

    async def watch(self) -> AsyncIterator[Sequence[InstanceState]]:
        """As the seam says; ends without an exception only if the launcher itself was closed."""
        reader, writer = await _connect(self._socket_path)
        try:
            await _send(writer, {"call": "watch"})
            while line := await _read_line(reader):
                message = json.loads(line)
                if "end" in message:
                    return
                yield tuple(decode_state(state) for state in message["states"])
            raise LauncherUnavailable(f"the launcher behind {self._socket_path} went away")
        finally:
            writer.close()

    async def close(self) -> None:
        """Hang up. The instances stay."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def _call(self, message: Message) -> None:
        async with self._connecting:
            if self._channel is None or self._channel.is_closed:
                self._channel = _Channel(*await _connect(self._socket_path))
        await self._channel.call(message)


class _Channel:
    """One connection, on which calls are told apart by their ids."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[str | None]] = {}
        self._task = asyncio.create_task(self._read_replies(), name="launcher-replies")
        self.is_closed = False

    async def call(self, message: Message) -> None:
        number = next(self._ids)
        reply = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await _send(self._writer, message | {"id": number})
            error = await reply
        finally:
            self._waiting.pop(number, None)
        if error is not None:
            raise LauncherError(error)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _read_replies(self) -> None:
        try:
            while line := await _read_line(self._reader):
                message = json.loads(line)
                reply = self._waiting.get(message["id"])
                if reply is not None and not reply.done():
                    reply.set_result(message.get("error"))
        finally:
            self.is_closed = True
            for reply in self._waiting.values():
                if not reply.done():
                    reply.set_exception(LauncherUnavailable("the launcher went away during the call"))
            self._writer.close()


async def _connect(socket_path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.open_unix_connection(socket_path, limit=_LONGEST_LINE)
    except OSError as error:
        raise LauncherUnavailable(f"no launcher answers on {socket_path}: {error}") from error


async def _send(writer: asyncio.StreamWriter, message: Message) -> None:
    """Write a line; a connection that is gone shows when its other direction is read."""
    with suppress(ConnectionError):
        writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        await writer.drain()


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    """The next line, empty at the end; a connection that broke has ended."""
    try:
        line = await reader.readline()
    except ConnectionError:
        return b""
    return line if line.endswith(b"\n") else b""
