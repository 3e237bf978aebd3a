"""What holds for the errors of every operation. `operation` is the name of the caller's method."""

import re
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from botocore_behaviours.caller import Caller, modelled, status
from orders import MISSING, counts, endpoint, fail
from report import Test, check, equal, failure, required


def typed(operation: str, name: str, code: int) -> Test:
    """An error that the gateway shows on demand arrives as its class."""

    def test(caller: Caller) -> None:
        fail(name, 1)
        client = caller.failing(1)
        error = modelled(lambda: getattr(caller, operation)(client), name)
        equal(error.response["Error"]["Code"], name, "the code")
        equal(status(error.response), code, "status")
        check(error.response["Error"]["Message"], "the error has no message")

    return test


def retries(operation: str, *names: str) -> Test:
    def test(caller: Caller) -> None:
        for name in names:
            fail(name, 2)
            reply = getattr(caller, operation)(caller.failing())
            equal(counts()["attempts"], 3, f"attempts at {name}")
            equal(reply["ResponseMetadata"]["RetryAttempts"], 2, "RetryAttempts")

    return test


def missing(operation: str) -> Test:
    def test(caller: Caller) -> None:
        client = caller.runtime(1)
        error = modelled(lambda: getattr(caller, operation)(client, EndpointName=MISSING), "ValidationError")
        equal(status(error.response), 400, "status")
        message = error.response["Error"]["Message"]
        check(re.fullmatch(r"Endpoint no-such-endpoint of account \d{12} not found\.", message), message)

    return test


def model_error(caller: Caller, call: Callable[..., Any], code: int) -> None:
    error = modelled(lambda: call(code), "ModelError")
    equal(status(error.response), 424, "status")
    equal(error.response["OriginalStatusCode"], code, "OriginalStatusCode")
    equal(error.response["OriginalMessage"], "the model's words", "OriginalMessage")
    group = f":log-group:/aws/sagemaker/Endpoints/{endpoint()}"
    check(error.response["LogStreamArn"].endswith(group), error.response["LogStreamArn"])
    check(f"({code}) from" in str(error), error)


def refused(operation: str, code: str, *, secret_only: bool) -> Test:
    def test(caller: Caller) -> None:
        client = caller.stranger(secret_only=secret_only)
        error = failure(lambda: getattr(caller, operation)(client), ClientError)
        equal(error.response["Error"]["Code"], code, "the code")
        equal(status(error.response), 403, "status")

    return test


def wrong_secret(operation: str) -> Test:
    return refused(operation, "InvalidSignatureException", secret_only=True)


def connection_reuse(use: Callable[[Caller, Any, int], object]) -> Test:
    """`use` calls once with the client; an odd turn may be one that fails."""

    def test(caller: Caller) -> None:
        required("CONFORMANCE_FAILING_URL")
        client = caller.failing()
        before = counts()["connections"]
        for turn in range(20):
            use(caller, client, turn)
        equal(counts()["connections"] - before, 1, "connections")

    return test
