"""The aws CLI as a client: a process for each call, its exit status, and what it writes where."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from orders import (
    MIB,
    MISSING,
    RAW,
    async_endpoint,
    counts,
    endpoint,
    fail,
    order,
    sha256,
    some_bytes,
    unique,
)
from report import check, equal, required, run

AWS = str(Path(sys.executable).with_name("aws"))
FAILED = 255
_TEMPORARY = tempfile.TemporaryDirectory(prefix="conformance-cli-")
DIRECTORY = Path(_TEMPORARY.name)
ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"


def aws(*words: str, status: int = 0, **environment: str) -> Any:
    """What it prints: parsed if it is JSON. If it is to fail: what it says on stderr."""
    done = subprocess.run(
        [AWS, *words],
        env={**os.environ, "AWS_PAGER": "", **environment},
        cwd=DIRECTORY,
        capture_output=True,
        text=True,
    )
    equal(done.returncode, status, f"the exit status of {' '.join(words)[:100]}: {done.stderr}")
    if status:
        return done.stderr.strip()
    return json.loads(done.stdout) if done.stdout.startswith(("{", "[")) else done.stdout.strip()


def invoke(*options: str, body: bytes | str = b"", **more: Any) -> tuple[Any, bytes]:
    """What it prints, and the reply's body in the outfile."""
    sent, outfile = DIRECTORY / "body", DIRECTORY / "out"
    outfile.unlink(missing_ok=True)
    sent.write_bytes(body.encode() if isinstance(body, str) else body)
    words = (
        "sagemaker-runtime",
        "invoke-endpoint",
        "--endpoint-name",
        endpoint(),
        "--body",
        f"fileb://{sent}",
    )
    printed = aws(*words, *options, str(outfile), **more)
    return printed, outfile.read_bytes() if outfile.exists() else b""


def obey(**what: object) -> dict[str, Any]:
    """The options and the body that tell the model what to do."""
    members = order(**what)
    return {"body": members["Body"]}


ORDERED = ("--content-type", order()["ContentType"])


def members_in() -> None:
    attributes = "a=1; b='two', c~"
    _, body = invoke(
        *("--content-type", "text/csv; charset=utf-8", "--accept", "application/json, */*;q=0.1"),
        *("--custom-attributes", attributes, "--inference-id", "an id (with spaces)"),
        *("--session-id", "session-1", "--target-variant", "Other"),
        body="x",
    )
    saw = json.loads(body)
    equal(saw["headers"]["content-type"], "text/csv; charset=utf-8", "--content-type")
    equal(saw["headers"]["accept"], "application/json, */*;q=0.1", "--accept")
    equal(saw["headers"][ATTRIBUTES], attributes, "--custom-attributes")
    equal(saw["headers"]["x-amzn-sagemaker-inference-id"], "an id (with spaces)", "--inference-id")
    equal(saw["headers"]["x-amzn-sagemaker-session-id"], "session-1", "--session-id")
    equal(saw["length"], 1, "length")


def members_out() -> None:
    headers = {
        "X-Amzn-SageMaker-Custom-Attributes": "trace=1; b",
        "X-Amzn-SageMaker-New-Session-Id": "s-1; Expires=2030-01-02T03:04:05Z",
        "X-Amzn-SageMaker-Closed-Session-Id": "s-0",
    }
    printed, body = invoke(
        *ORDERED, **obey(body="done", content_type="text/x; charset=utf-8", headers=headers)
    )
    equal(body, b"done", "the outfile")
    expected = {
        "ContentType": "text/x; charset=utf-8",
        "InvokedProductionVariant": "Main",
        "CustomAttributes": "trace=1; b",
        "NewSessionId": "s-1; Expires=2030-01-02T03:04:05Z",
        "ClosedSessionId": "s-0",
    }
    equal(printed, expected, "what it prints")


def round_trip(body: bytes) -> None:
    _, came = invoke("--accept", RAW, body=body)
    equal(sha256(came), sha256(body), "the outfile's hash")


def body_too_large() -> None:
    said, _ = invoke(body=bytes(6 * MIB + 1), status=FAILED)
    check("(RequestEntityTooLargeException)" in said, said)


def target_variant() -> None:
    equal(invoke()[0]["InvokedProductionVariant"], "Main", "without --target-variant")
    equal(invoke("--target-variant", "Other")[0]["InvokedProductionVariant"], "Other", "with it")
    check("(ValidationError)" in invoke("--target-variant", "Third", status=FAILED)[0], "with an unknown one")


def validation_error() -> None:
    said = aws(
        *("sagemaker-runtime", "invoke-endpoint", "--endpoint-name", MISSING, "--body", "x", "out"),
        status=FAILED,
    )
    check("An error occurred (ValidationError) when calling the InvokeEndpoint operation" in said, said)
    check(re.search(r"Endpoint no-such-endpoint of account \d{12} not found\.$", said), said)


def model_error() -> None:
    for code in (400, 503):
        said, _ = invoke(*ORDERED, **obey(status=code, body="the model's words"), status=FAILED)
        check("(ModelError)" in said and f"({code}) from" in said and "the model's words" in said, said)


def retries() -> None:
    url = required("CONFORMANCE_FAILING_URL")
    for name in ("ServiceUnavailable", "InternalFailure"):
        fail(name, 2)
        invoke("--endpoint-url", url)
        equal(counts()["attempts"], 3, f"attempts at {name}")


def wrong_secret() -> None:
    said, _ = invoke(status=FAILED, AWS_SECRET_ACCESS_KEY="not-the-secret")
    check("(InvalidSignatureException)" in said, said)


def unknown_key() -> None:
    said, _ = invoke(status=FAILED, AWS_ACCESS_KEY_ID="AKIAAAAAAAAAAAAAAAAA")
    check("(UnrecognizedClientException)" in said, said)


def invoke_async(*options: str, body: bytes, name: str = "", **more: Any) -> Any:
    source, at = DIRECTORY / "input", f"s3://{required('CONFORMANCE_BUCKET')}/in/{unique()}"
    source.write_bytes(body)
    aws("s3", "cp", "--quiet", str(source), at)
    words = ("--endpoint-name", name or async_endpoint(), "--input-location", at)
    return aws("sagemaker-runtime", "invoke-endpoint-async", *words, *options, **more)


def fetched(url: str) -> bytes:
    """An object, once it is there."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    aws("s3api", "wait", "object-exists", "--bucket", bucket, "--key", key)
    aws("s3", "cp", "--quiet", url, "fetched")
    return (DIRECTORY / "fetched").read_bytes()


def async_members_in() -> None:
    identity = unique()
    printed = invoke_async(
        *("--content-type", "text/csv", "--accept", "application/json", "--custom-attributes", "a=1"),
        *("--inference-id", identity, "--request-ttl-seconds", "600", "--invocation-timeout-seconds", "60"),
        body=b"x",
    )
    equal(printed["InferenceId"], identity, "InferenceId")
    saw = json.loads(fetched(printed["OutputLocation"]))
    equal(saw["headers"]["content-type"], "text/csv", "--content-type")
    equal(saw["headers"]["accept"], "application/json", "--accept")
    equal(saw["headers"][ATTRIBUTES], "a=1", "--custom-attributes")
    equal(saw["length"], 1, "length")


def async_result() -> None:
    body = some_bytes(100_000)
    printed = invoke_async("--accept", RAW, body=body)
    equal(set(printed), {"InferenceId", "OutputLocation", "FailureLocation"}, "what it prints")
    equal(sha256(fetched(printed["OutputLocation"])), sha256(body), "the object's hash")


def async_failure() -> None:
    asked = order(status=500, body="the model's words")
    printed = invoke_async(*ORDERED, body=asked["Body"].encode())
    said = fetched(printed["FailureLocation"])
    check(b"the model's words" in said, said)


def async_validation_error() -> None:
    for name in (MISSING, endpoint()):
        said = invoke_async(body=b"x", name=name, status=FAILED)
        check("(ValidationError)" in said, said)


def describe() -> None:
    name = ("--endpoint-name", endpoint())
    described = aws("sagemaker", "describe-endpoint", *name)
    equal(described["EndpointStatus"], "InService", "EndpointStatus")
    check(isinstance(described["CreationTime"], float), described["CreationTime"])  # as it came
    asked = ("--query", "ProductionVariants[].VariantName", "--output", "text")
    equal(aws("sagemaker", "describe-endpoint", *name, *asked), "Main\tOther", "--query, --output text")
    aws("sagemaker", "wait", "endpoint-in-service", *name)
    listed = aws("sagemaker", "list-endpoints", "--page-size", "1", "--query", "Endpoints[].EndpointName")
    check({endpoint(), async_endpoint()} <= set(listed), listed)
    config = described["EndpointConfigName"]
    described = aws("sagemaker", "describe-endpoint-config", "--endpoint-config-name", config)
    model = described["ProductionVariants"][0]["ModelName"]
    described = aws("sagemaker", "describe-model", "--model-name", model)
    check(described["PrimaryContainer"]["Image"], described)
    account = aws("sts", "get-caller-identity")["Account"]
    check(f":{account}:" in described["ModelArn"], described["ModelArn"])


def s3() -> None:
    prefix = f"s3://{required('CONFORMANCE_BUCKET')}/cli/{unique()}"
    (DIRECTORY / "tree" / "below").mkdir(parents=True)
    large, small = DIRECTORY / "tree" / "large", DIRECTORY / "tree" / "below" / "ü +100%"
    large.write_bytes(some_bytes(20 * MIB))  # in several parts
    small.write_bytes(b"small")
    aws("s3", "cp", "--quiet", "--recursive", "tree", prefix)
    lines = aws("s3", "ls", "--recursive", f"{prefix}/").splitlines()
    equal([line.split()[2] for line in lines], ["5", str(20 * MIB)], "the sizes")
    aws("s3", "sync", "--quiet", prefix, "again")
    equal(sha256((DIRECTORY / "again" / "large").read_bytes()), sha256(large.read_bytes()), "the large one")
    equal((DIRECTORY / "again" / "below" / "ü +100%").read_bytes(), b"small", "the small one")
    equal(aws("s3", "sync", prefix, "again"), "", "what a second sync does")
    for name in ("large", "below/ü +100%"):  # large: copied in parts
        aws("s3", "mv", "--quiet", f"{prefix}/{name}", f"{prefix}/moved {name}")
    aws("s3", "mv", "--quiet", f"{prefix}/moved large", "back")
    equal(sha256((DIRECTORY / "back").read_bytes()), sha256(large.read_bytes()), "the large one, moved twice")
    equal(aws("s3", "cp", f"{prefix}/moved below/ü +100%", "-"), "small", "the small one")
    aws("s3", "rm", "--quiet", "--recursive", prefix)
    aws("s3", "ls", f"{prefix}/", status=1)


def exit_status() -> None:
    missing = ("--endpoint-name", MISSING)
    said = aws("sagemaker", "describe-endpoint", *missing, status=FAILED)
    check("(ValidationException) when calling the DescribeEndpoint operation: Could not find" in said, said)
    said = aws("s3", "cp", f"s3://{required('CONFORMANCE_BUCKET')}/{unique()}", "x", status=1)
    check("(404) when calling the HeadObject operation" in said, said)
    said = aws("sagemaker", "list-endpoints", status=FAILED, AWS_SECRET_ACCESS_KEY="not-the-secret")
    check("(InvalidSignatureException)" in said, said)
    aws("sagemaker", "list-endpoints", "--max-results", "0", status=FAILED)
    aws("sagemaker", "no-such-command", status=2)


if __name__ == "__main__":
    run(
        {
            "invoke.members-in": members_in,
            "invoke.members-out": members_out,
            "invoke.body-empty": lambda: round_trip(b""),
            "invoke.body-binary": lambda: round_trip(some_bytes(65536)),
            "invoke.body-large": lambda: round_trip(some_bytes(5_000_000)),
            "invoke.body-too-large": body_too_large,
            "invoke.target-variant": target_variant,
            "invoke.validation-error": validation_error,
            "invoke.model-error": model_error,
            "invoke.retries": retries,
            "invoke.wrong-secret": wrong_secret,
            "invoke.unknown-key": unknown_key,
            "async.members-in": async_members_in,
            "async.result": async_result,
            "async.failure": async_failure,
            "async.validation-error": async_validation_error,
            "cli.describe": describe,
            "cli.s3": s3,
            "cli.exit-status": exit_status,
        }
    )
