"""InvokeEndpointWithResponseStream."""

import json
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import EventStreamError

from botocore_behaviours.caller import Caller, Reply, modelled, parts, status
from botocore_behaviours.errors import connection_reuse, missing, model_error, retries, typed, wrong_secret
from botocore_behaviours.invoke import ATTRIBUTES, MEMBERS, saw_members
from orders import RAW, fail, listed, order, sha256, some_bytes, unique
from report import Test, check, equal, failure

OPERATION = "InvokeEndpointWithResponseStream"


def members_in(caller: Caller) -> str:
    known = caller.only_known(OPERATION, MEMBERS)
    reply = caller.stream(**known)
    equal(reply["InvokedProductionVariant"], "Other", "TargetVariant")
    saw_members(json.loads(reply["Body"]))
    for member in ("InferenceComponentName", "TargetContainerHostname"):
        modelled(lambda asked={member: "other"}: caller.stream(**asked), "ValidationError")
    without = MEMBERS.keys() - known.keys()
    return f"without {', '.join(without)}, which this release does not have" if without else ""


def members_out(caller: Caller) -> None:
    headers = {ATTRIBUTES: "trace=1; b"}
    reply = caller.stream(**order(parts=2, content_type="text/x; charset=utf-8", headers=headers))
    equal(status(reply), 200, "status")
    equal(reply["ContentType"], "text/x; charset=utf-8", "ContentType")
    equal(reply["InvokedProductionVariant"], "Main", "InvokedProductionVariant")
    equal(reply["CustomAttributes"], "trace=1; b", "CustomAttributes")
    check(reply["ResponseMetadata"]["RequestId"], "no request id")
    equal(reply["Body"].decode(), listed(2), "Body")


def many_parts(caller: Caller) -> None:
    equal(caller.stream(**order(parts=2000))["Body"].decode(), listed(2000), "Body")


def part_at_once(caller: Caller) -> None:
    gate = unique()
    came = []
    for part in parts(caller.open_stream(**order(gate=gate))):
        came.append(part)
        if len(came) == 1:
            caller.invoke(**order(open=gate))
    equal(came, [b"first", b"second"], "parts")


def round_trip(body: bytes) -> Test:
    def test(caller: Caller) -> None:
        equal(sha256(caller.stream(Body=body, Accept=RAW)["Body"]), sha256(body), "the body's hash")

    return test


def models_error(caller: Caller) -> None:
    model_error(caller, lambda code: caller.stream(**order(status=code, body="the model's words")), 500)


def broken(reply: Reply) -> EventStreamError:
    """The error of a stream that broke after three parts."""
    before = []

    def read() -> None:
        for part in parts(reply):
            before.append(part)

    error: EventStreamError = failure(read, EventStreamError)
    equal(b"".join(before).decode(), listed(3), "the parts before")
    check(error.response["Error"]["Message"], "the error has no message")
    return error


def model_stream_error(caller: Caller) -> str:
    error = broken(caller.open_stream(**order(parts=3, **{"break": True})))
    equal(error.response["Error"]["Code"], "ModelStreamError", "the error")
    return f"it is an EventStreamError, with {error.response}"


def internal_stream_failure(caller: Caller) -> None:
    fail("InternalStreamFailure", 1)
    error = broken(caller.open_stream(caller.failing(), **order(parts=3)))
    equal(error.response["Error"]["Code"], "InternalStreamFailure", "the error")


def abandoned(caller: Caller) -> None:
    reply = caller.open_stream(**order(gate=unique()))
    equal(next(parts(reply)), b"first", "the first part")
    reply["Body"].close()
    equal(caller.stream(**order(parts=1))["Body"].decode(), listed(1), "the next stream")


def reuse(caller: Caller, client: Any, turn: int) -> None:
    caller.stream(client, **order(parts=3))


STREAM: Mapping[str, Test] = {
    "stream.members-in": members_in,
    "stream.members-out": members_out,
    "stream.parts": many_parts,
    "stream.part-at-once": part_at_once,
    "stream.body-empty": round_trip(b""),
    "stream.body-binary": round_trip(some_bytes(65536)),
    "stream.body-large": round_trip(some_bytes(5_000_000)),
    "stream.validation-error": missing("stream"),
    "stream.model-error": models_error,
    "stream.model-stream-error": model_stream_error,
    "stream.internal-stream-failure": internal_stream_failure,
    "stream.internal-failure": typed("stream", "InternalFailure", 500),
    "stream.service-unavailable": typed("stream", "ServiceUnavailable", 503),
    "stream.retries": retries("stream", "ServiceUnavailable"),
    "stream.abandoned": abandoned,
    "stream.connection-reuse": connection_reuse(reuse),
    "stream.wrong-secret": wrong_secret("stream"),
}
