"""InvokeEndpointAsync, and its results in S3."""

import json
import re
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError, ParamValidationError

from botocore_behaviours.caller import Caller, modelled, status
from botocore_behaviours.errors import connection_reuse, missing, retries, typed, wrong_secret
from orders import RAW, endpoint, order, sha256, some_bytes, unique
from report import Test, check, equal, failure


def members_in(caller: Caller) -> str:
    identity = unique()
    members = {
        "ContentType": "text/csv; charset=utf-8",
        "Accept": "application/json",
        "CustomAttributes": "a=1; b='two', c~",
        "InferenceId": identity,
        "RequestTTLSeconds": 600,
        "InvocationTimeoutSeconds": 60,
        "S3OutputPathExtension": f"extension/{identity}",
        "Filename": "result.json",
    }
    known = caller.only_known("InvokeEndpointAsync", members)
    reply = caller.invoke_async(**known)
    equal(reply["InferenceId"], identity, "InferenceId")
    if known.keys() == members.keys():
        location = reply["OutputLocation"]
        check(location.endswith(f"/extension/{identity}/result.json"), location)
    saw = json.loads(caller.object(reply["OutputLocation"])[1])
    for header, member in (
        ("content-type", "ContentType"),
        ("accept", "Accept"),
        ("x-amzn-sagemaker-custom-attributes", "CustomAttributes"),
        ("x-amzn-sagemaker-inference-id", "InferenceId"),
    ):
        equal(saw["headers"][header], members[member], member)
    equal(saw["length"], 1, "length")
    for wrong in ({"RequestTTLSeconds": 59}, {"InvocationTimeoutSeconds": 3601}):
        failure(lambda wrong=wrong: caller.invoke_async(**wrong), ParamValidationError, ClientError)
    without = members.keys() - known.keys()
    return f"without {', '.join(sorted(without))}, which this release does not have" if without else ""


def result(caller: Caller) -> None:
    body = some_bytes(100_000)
    reply = caller.invoke_async(body=body, Accept=RAW)
    equal(status(reply), 202, "status")
    check(reply["ResponseMetadata"]["RequestId"], "no request id")
    check(reply["InferenceId"], "no InferenceId")
    check(re.fullmatch(r"s3://.+-error\.out", reply["FailureLocation"]), reply["FailureLocation"])
    content_type, data = caller.object(reply["OutputLocation"])
    equal(content_type, RAW, "the object's content type")
    equal(sha256(data), sha256(body), "the object's hash")


def input_location(caller: Caller) -> None:
    body = some_bytes(5_000_000)
    reply = caller.invoke_async(body=None, InputLocation=caller.upload(body), Accept=RAW)
    equal(sha256(caller.object(reply["OutputLocation"])[1]), sha256(body), "the object's hash")


def failed(caller: Caller) -> None:
    asked = order(status=500, body="the model's words")
    reply = caller.invoke_async(body=asked["Body"], ContentType=asked["ContentType"])
    _, data = caller.object(reply["FailureLocation"])
    check(b"the model's words" in data, data)


def body_and_location(caller: Caller) -> None:
    both = {"Body": b"x", "InputLocation": "s3://bucket/key"}
    modelled(lambda: caller.invoke_async(body=None, **both), "ValidationError")
    modelled(lambda: caller.invoke_async(body=None), "ValidationError")


def body_too_large(caller: Caller) -> None:
    modelled(lambda: caller.invoke_async(body=bytes(128_001)), "ValidationError")


def validation_error(caller: Caller) -> None:
    missing("invoke_async")(caller)
    modelled(lambda: caller.invoke_async(EndpointName=endpoint()), "ValidationError")


def reuse(caller: Caller, client: Any, turn: int) -> None:
    caller.invoke_async(client)


ASYNCHRONOUS: Mapping[str, Test] = {
    "async.members-in": members_in,
    "async.result": result,
    "async.input-location": input_location,
    "async.failure": failed,
    "async.body-and-location": body_and_location,
    "async.body-too-large": body_too_large,
    "async.validation-error": validation_error,
    "async.internal-failure": typed("invoke_async", "InternalFailure", 500),
    "async.service-unavailable": typed("invoke_async", "ServiceUnavailable", 503),
    "async.retries": retries("invoke_async", "ServiceUnavailable"),
    "async.connection-reuse": connection_reuse(reuse),
    "async.wrong-secret": wrong_secret("invoke_async"),
}
