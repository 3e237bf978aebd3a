"""InvokeEndpoint."""

import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError

from botocore_behaviours.caller import Caller, modelled, status
from botocore_behaviours.errors import (
    connection_reuse,
    missing,
    model_error,
    refused,
    retries,
    typed,
    wrong_secret,
)
from orders import MIB, RAW, order, sha256, some_bytes, unique
from report import Test, check, equal, failure

VISIBLE = "".join(chr(0x21 + index % 94) for index in range(1024))
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
MEMBERS = {
    "Body": "x",
    "ContentType": "text/csv; charset=utf-8",
    "Accept": "application/json, */*;q=0.1",
    "CustomAttributes": "a=1; b='two', c~",
    "InferenceId": "an id (with spaces)",
    "SessionId": "session-1",
    "PrefixAwareId": "prefix",
    "TargetVariant": "Other",
}


def saw_members(saw: Mapping[str, Any]) -> None:
    """What the model says that it saw of MEMBERS."""
    for header, member in (
        ("content-type", "ContentType"),
        ("accept", "Accept"),
        (ATTRIBUTES.lower(), "CustomAttributes"),
        ("x-amzn-sagemaker-inference-id", "InferenceId"),
        ("x-amzn-sagemaker-session-id", "SessionId"),
    ):
        equal(saw["headers"][header], MEMBERS[member], member)
    equal(saw["length"], 1, "length")


def members_in(caller: Caller) -> str:
    known = caller.only_known("InvokeEndpoint", MEMBERS)
    saw_members(caller.seen(**known))
    without = MEMBERS.keys() - known.keys()
    return f"without {', '.join(without)}, which this release does not have" if without else ""


def members_out(caller: Caller) -> None:
    headers = {
        ATTRIBUTES: "trace=1; b",
        "X-Amzn-SageMaker-New-Session-Id": "s-1; Expires=2030-01-02T03:04:05Z",
        "X-Amzn-SageMaker-Closed-Session-Id": "s-0",
    }
    reply = caller.invoke(**order(body="done", content_type="text/x; charset=utf-8", headers=headers))
    equal(status(reply), 200, "status")
    equal(reply["Body"], b"done", "Body")
    equal(reply["ContentType"], "text/x; charset=utf-8", "ContentType")
    equal(reply["InvokedProductionVariant"], "Main", "InvokedProductionVariant")
    equal(reply["CustomAttributes"], "trace=1; b", "CustomAttributes")
    equal(reply["NewSessionId"], "s-1; Expires=2030-01-02T03:04:05Z", "NewSessionId")
    equal(reply["ClosedSessionId"], "s-0", "ClosedSessionId")


def request_id(caller: Caller) -> None:
    check(caller.invoke()["ResponseMetadata"]["RequestId"], "the reply has no request id")
    error = modelled(lambda: caller.invoke(**order(status=400)), "ModelError")
    check(error.response["ResponseMetadata"]["RequestId"], "the error has no request id")


def round_trip(body: bytes) -> Test:
    def test(caller: Caller) -> None:
        equal(sha256(caller.invoke(Body=body, Accept=RAW)["Body"]), sha256(body), "the body's hash")

    return test


def body_too_large(caller: Caller) -> None:
    error = failure(lambda: caller.invoke(Body=bytes(6 * MIB + 1)), ClientError)
    equal(error.response["Error"]["Code"], "RequestEntityTooLargeException", "the code")
    equal(status(error.response), 413, "status")


def body_stream(caller: Caller) -> None:
    body = some_bytes(1_000_000)
    with tempfile.TemporaryFile() as file:
        file.write(body)
        file.seek(0)
        equal(sha256(caller.invoke(Body=file, Accept=RAW)["Body"]), sha256(body), "the body's hash")


def custom_attributes(caller: Caller) -> str:
    equal(caller.seen(CustomAttributes=VISIBLE)["headers"][ATTRIBUTES.lower()], VISIBLE, "CustomAttributes")
    error = modelled(lambda: caller.invoke(CustomAttributes=f"{VISIBLE}x"), "ValidationError")
    check("less than or equal to 1024" in str(error), error)
    beyond = failure(lambda: caller.invoke(CustomAttributes="naïve"), Exception)
    unsendable = failure(lambda: caller.invoke(CustomAttributes="\N{SNOWMAN}"), Exception)
    return f'"naïve": {type(beyond).__name__}; a snowman: {type(unsendable).__name__}'


def target_variant(caller: Caller) -> None:
    equal(caller.invoke()["InvokedProductionVariant"], "Main", "without TargetVariant")
    equal(caller.invoke(TargetVariant="Other")["InvokedProductionVariant"], "Other", "with TargetVariant")
    modelled(lambda: caller.invoke(TargetVariant="Third"), "ValidationError")


def not_supported(caller: Caller) -> None:
    asked = {
        "TargetModel": "one.tar.gz",
        "InferenceComponentName": "component",
        "TargetContainerHostname": "second",
        "EnableExplanations": "`true`",
    }
    for member, value in asked.items():
        modelled(lambda asked={member: value}: caller.invoke(**asked), "ValidationError")


def models_error(caller: Caller) -> None:
    for code in (400, 503):
        model_error(caller, lambda code: caller.invoke(**order(status=code, body="the model's words")), code)


def no_retries(caller: Caller) -> None:
    name = unique()
    modelled(lambda: caller.invoke(**order(count=name, status=500)), "ModelError")
    equal(caller.invoke(**order(counted=name))["Body"], b"1", "attempts")


def client_timeout(caller: Caller) -> None:
    client = caller.runtime(1, read_timeout=0.5)
    failure(lambda: caller.invoke(client, **order(hang=True)), ReadTimeoutError)
    equal(caller.invoke(client, **order(body="next"))["Body"], b"next", "the next call")


def reuse(caller: Caller, client: Any, turn: int) -> None:
    if turn % 2:
        modelled(lambda: caller.invoke(client, **order(status=400)), "ModelError")
    else:
        caller.invoke(client)


def concurrent(caller: Caller) -> None:
    bodies = [f"body {index}".encode() for index in range(32)]
    with ThreadPoolExecutor(len(bodies)) as threads:
        replies = threads.map(lambda body: caller.invoke(Body=body, Accept=RAW)["Body"], bodies)
        equal(list(replies), bodies, "the bodies")


def close(caller: Caller) -> None:
    client = caller.runtime()
    caller.invoke(client)
    client.close()


INVOKE: Mapping[str, Test] = {
    "invoke.members-in": members_in,
    "invoke.members-out": members_out,
    "invoke.request-id": request_id,
    "invoke.body-empty": round_trip(b""),
    "invoke.body-binary": round_trip(some_bytes(65536)),
    "invoke.body-large": round_trip(some_bytes(5_000_000)),
    "invoke.body-too-large": body_too_large,
    "invoke.body-stream": body_stream,
    "invoke.custom-attributes": custom_attributes,
    "invoke.target-variant": target_variant,
    "invoke.not-supported": not_supported,
    "invoke.validation-error": missing("invoke"),
    "invoke.model-error": models_error,
    "invoke.model-not-ready": typed("invoke", "ModelNotReadyException", 429),
    "invoke.internal-failure": typed("invoke", "InternalFailure", 500),
    "invoke.service-unavailable": typed("invoke", "ServiceUnavailable", 503),
    "invoke.internal-dependency": typed("invoke", "InternalDependencyException", 530),
    "invoke.retries": retries("invoke", "ServiceUnavailable", "InternalFailure"),
    "invoke.no-retries": no_retries,
    "invoke.client-timeout": client_timeout,
    "invoke.connection-reuse": connection_reuse(reuse),
    "invoke.concurrent": concurrent,
    "invoke.wrong-secret": wrong_secret("invoke"),
    "invoke.unknown-key": refused("invoke", "UnrecognizedClientException", secret_only=False),
    "invoke.close": close,
}
