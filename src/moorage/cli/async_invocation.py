"""`moorage invoke --async`: give an invocation to an asynchronous endpoint, and wait for its end if wanted."""

import io
import json
import re
import shlex
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from moorage.async_inference.base import FINAL, Status
from moorage.cli.client import ERRORS, NoServer, PrivateRoutes, Refused, client, complain, explain
from moorage.cli.inspection import local_time
from moorage.cli.invocation import text_or_base64
from moorage.cli.terminal import ResultWriter, escape, say
from moorage.config import Settings
from moorage.storage.objects import ObjectError, ObjectUrl
from moorage.wire import header_text

MOST_INLINE_BYTES = 128_000
"""The longest `Body` of InvokeEndpointAsync; what is longer goes by way of S3."""

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
_COUNT_AFTER_SECONDS = 1.0
_COUNT_EVERY_SECONDS = 5.0
_PATIENCE_SECONDS = 60.0
_PIECE = 256 * 1024
_INTERRUPTED = 130

Accepted = Mapping[str, str]
"""The reply of InvokeEndpointAsync: `InferenceId`, and what there is of `OutputLocation` and `FailureLocation`."""

Record = Mapping[str, Any]
"""An invocation as the private routes tell it."""


class _Problem(Exception):
    """What was asked for cannot be done; the text says why."""


def invoke_async(
    settings: Settings,
    *,
    name: str,
    body: str | None,
    file: Path | None,
    input_location: str | None,
    content_type: str | None,
    accept: str | None,
    inference_id: str | None,
    timeout_seconds: int | None,
    wait: bool,
    raw: bool,
    as_json: bool,
) -> int:
    if sum(given is not None for given in (body, file, input_location)) != 1:
        complain("give the request's body with one of --body, --file and --input-location")
        return 2
    members: dict[str, str | bytes | int | None] = {
        "EndpointName": name,
        "Accept": accept,
        "InferenceId": inference_id,
        "InvocationTimeoutSeconds": timeout_seconds,
    }
    try:
        if input_location is not None:
            # When the request gives no content type, the object's own counts.
            members |= {"InputLocation": input_location, "ContentType": content_type}
        else:
            content_type = content_type or "application/json"
            with _opened(body, file) as source:
                file_name = "body" if file is None or str(file) == "-" else file.name
                members |= {"ContentType": content_type}
                members |= _input(settings, name, source, file_name, content_type)
        runtime = client(settings, "sagemaker-runtime", retries={"total_max_attempts": 1})
        given = {member: value for member, value in members.items() if value is not None}
        reply = runtime.invoke_endpoint_async(**given)
    except (_Problem, *ERRORS) as error:
        complain(explain(error))
        return 1
    except OSError as error:
        complain(f"cannot read {file}: {error.strerror}")
        return 2
    told = ("InferenceId", "OutputLocation", "FailureLocation")
    accepted = {
        member: header_text.from_latin_1(reply[member]) if member.endswith("Location") else str(reply[member])
        for member in told
        if member in reply
    }
    if wait:
        return _wait(settings, accepted, raw=raw, as_json=as_json)
    if as_json:
        print(json.dumps(accepted))
    else:
        for member, value in accepted.items():
            say(f"{member:<16} {value}")
    return 0


# --- the input ------------------------------------------------------------------------------------------


@contextmanager
def _opened(body: str | None, file: Path | None) -> Iterator[BinaryIO]:
    """The input as a file that can be read twice; a pipe is copied to one."""
    if body is not None:
        yield io.BytesIO(body.encode())
        return
    assert file is not None
    with sys.stdin.buffer if str(file) == "-" else file.open("rb") as source:
        if str(file) != "-" and source.seekable():
            yield source
            return
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(source, copy)
            copy.seek(0)
            yield copy


def _input(
    settings: Settings, endpoint: str, source: BinaryIO, file_name: str, content_type: str
) -> dict[str, bytes | str]:
    """The member that carries the input: `Body`, or `InputLocation` of what had to be uploaded."""
    start = source.read(MOST_INLINE_BYTES + 1)
    if len(start) <= MOST_INLINE_BYTES:
        return {"Body": start}
    source.seek(0)
    bucket = _bucket(settings, endpoint)
    plain_name = re.sub(r"[^A-Za-z0-9._-]", "_", file_name)[-200:]
    key = f"async-inputs/{uuid.uuid4()}/{plain_name}"
    s3 = client(settings, "s3")
    with _display(quiet=not sys.stderr.isatty()) as display:
        display.say(f"uploading to s3://{bucket}/{key}")
        s3.upload_fileobj(source, bucket, key, ExtraArgs={"ContentType": content_type})
    return {"InputLocation": f"s3://{bucket}/{key}"}


def _bucket(settings: Settings, endpoint: str) -> str:
    """The bucket that the endpoint writes to."""
    description = client(settings, "sagemaker").describe_endpoint(EndpointName=endpoint)
    output = description.get("AsyncInferenceConfig", {}).get("OutputConfig", {})
    path = output.get("S3OutputPath") or output.get("S3FailurePath")
    if not path:
        raise _Problem(
            f"a body of more than {MOST_INLINE_BYTES:,} bytes has to be uploaded, and {endpoint} has no S3OutputPath "
            "that says to which bucket. Upload it yourself and give --input-location."
        )
    try:
        return ObjectUrl.parse(path).bucket
    except ObjectError as error:
        raise _Problem(str(error)) from error


# --- waiting --------------------------------------------------------------------------------------------


def _wait(settings: Settings, accepted: Accepted, *, raw: bool, as_json: bool) -> int:
    look = f"moorage async show {shlex.quote(accepted['InferenceId'])}"
    try:
        routes = PrivateRoutes(settings)
        with _display(quiet=as_json) as display:
            display.say(f"{accepted['InferenceId']} is accepted")
            record = _until_finished(routes, accepted, display)
        return _conclude(settings, record, raw=raw, as_json=as_json)
    except KeyboardInterrupt:
        complain(f"the invocation goes on without us. Look at it with: {look}")
        return _INTERRUPTED
    except (_Problem, *ERRORS) as error:
        complain(f"{explain(error)}\nThe invocation was accepted. Look at it with: {look}")
        return 1


def _until_finished(routes: PrivateRoutes, accepted: Accepted, display: "_Display") -> Record:
    """The record of the invocation once it has a final status. A server that restarts is waited for.

    Raises:
        NoServer, Refused: it cannot be had.
    """
    pause = _FIRST_PAUSE_SECONDS
    next_count = time.monotonic() + _COUNT_AFTER_SECONDS
    last_heard = time.monotonic()
    while True:
        try:
            record = _find(routes, accepted)
            last_heard = time.monotonic()
            display.say(_state(record))
            if record["Status"] in FINAL:
                return record
            if record["Status"] == Status.QUEUED and time.monotonic() >= next_count:
                display.add(_queue_length(routes, record["EndpointName"]))
                next_count = time.monotonic() + _COUNT_EVERY_SECONDS
        except (NoServer, Refused) as error:
            refused = isinstance(error, Refused) and error.status < 500
            if refused or time.monotonic() - last_heard > _PATIENCE_SECONDS:
                raise
            display.say("the server does not answer; waiting for it")
        time.sleep(pause)
        pause = min(1.25 * pause, _LONGEST_PAUSE_SECONDS)


def _find(routes: PrivateRoutes, accepted: Accepted) -> Record:
    """This very invocation: others may have the same inference id, but none the same places."""
    found: list[Record] = routes.ask("GET", "async/invocation", id=accepted["InferenceId"])["Invocations"]
    for record in found:
        if all(record.get(name) == value for name, value in accepted.items()):
            return record
    raise _Problem(f"there is no invocation {accepted['InferenceId']} any more")


def _state(record: Record) -> str:
    attempts = record["Attempts"]
    if record["Status"] == Status.RUNNING:
        since = f"since {local_time(record['FirstClaimedTime'])}"
        return f"Running {since}" if attempts == 1 else f"Running, attempt {attempts}, first {since}"
    if record["Status"] == Status.QUEUED and attempts:
        return f"Queued for attempt {attempts + 1}"
    return str(record["Status"])


def _queue_length(routes: PrivateRoutes, endpoint: str) -> str:
    for backlog in routes.ask("GET", "async/backlogs")["Backlogs"]:
        if backlog["EndpointName"] == endpoint:
            counts = backlog["Counts"]
            return f"{counts[Status.QUEUED]:,} queued, {counts[Status.RUNNING]:,} running"
    return ""


class _Display:
    """Tells on stderr how it goes: a live line on a terminal, else a line for every change."""

    def __init__(self, progress: Progress | None, *, quiet: bool) -> None:
        self._progress = progress
        self._task = None if progress is None else progress.add_task("")
        self._quiet = quiet
        self._said = ""

    def say(self, state: str) -> None:
        if self._quiet or state == self._said:
            return
        self._said = state
        if self._progress is None:
            say(state, file=sys.stderr)
        else:
            self._update(state)

    def add(self, detail: str) -> None:
        """What changes all the time: for the live line only."""
        if detail:
            self._update(f"{self._said} ({detail})")

    def _update(self, text: str) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=escape(text))


@contextmanager
def _display(*, quiet: bool) -> Iterator[_Display]:
    if quiet or not sys.stderr.isatty():
        yield _Display(None, quiet=quiet)
        return
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Display(progress, quiet=False)


# --- the end --------------------------------------------------------------------------------------------


def _conclude(settings: Settings, record: Record, *, raw: bool, as_json: bool) -> int:
    """The result to stdout, or why there is none to stderr."""
    if record["Status"] != Status.COMPLETED:
        if as_json:
            print(json.dumps(record))
        else:
            complain(str(record.get("Reason")))
        return 1
    location = record.get("OutputLocation")
    if location is None:
        if as_json:
            print(json.dumps(record))
        else:
            complain("Completed. The endpoint has no S3OutputPath: its result went to the notification only.")
        return 0
    reply = _get(settings, location)
    if as_json:
        document = {**record, "OutputContentType": reply["ContentType"]}
        print(json.dumps(document | text_or_base64(reply["Body"].read())))
        return 0
    writer = ResultWriter(raw=raw)
    for piece in reply["Body"].iter_chunks(_PIECE):
        writer.write(piece)
    writer.end()
    return 0


def _get(settings: Settings, location: str) -> dict[str, Any]:
    try:
        where = ObjectUrl.parse(location)
    except ObjectError as error:
        raise _Problem(str(error)) from error
    reply: dict[str, Any] = client(settings, "s3").get_object(Bucket=where.bucket, Key=where.key)
    return reply
