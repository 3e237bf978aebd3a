"""`moorage invoke --async` and `moorage async`, as a person or a script runs them, against a server that does it."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from moorage.cli.client import PrivateRoutes
from moorage.config import load
from tests.cli.test_commands import moorage
from tests.servers import MoorageServer, eventually

NAME = "cli-async"
TEXT = ("--content-type", "text/plain")

MODEL = {
    "code/inference.py": """
import os
import time

def model_fn(model_dir):
    return None

def transform_fn(model, body, content_type, accept):
    body = bytes(body)
    if body == b"fail":
        raise ValueError("as you wish")
    if body.startswith(b"until "):
        while not os.path.exists(body[6:].decode()):
            time.sleep(0.01)
    return body[::-1], "text/plain"
"""
}
OUTPUT = {"S3OutputPath": "s3://cli-async/out", "S3FailurePath": "s3://cli-async/failed"}


def deploy(server: MoorageServer, name: str, output: dict[str, str]) -> None:
    """An endpoint with one instance, which takes one invocation at a time."""
    client_config = {"MaxConcurrentInvocationsPerInstance": 1}
    config = {"AsyncInferenceConfig": {"OutputConfig": output, "ClientConfig": client_config}}
    server.client("s3").create_bucket(Bucket=name)
    server.deploy(name, MODEL, config=config)


@pytest.fixture(scope="module")
def endpoint(server: MoorageServer) -> str:
    deploy(server, NAME, OUTPUT)
    return NAME


@cache
def private_routes(server: MoorageServer) -> PrivateRoutes:
    settings = load(file=None, environment={}, overrides={"data_dir": server.data_dir})
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("AWS_ENDPOINT_URL", raising=False)
        return PrivateRoutes(settings)


def invoke(server: MoorageServer, name: str, body: str, **members: str) -> dict[str, str]:
    runtime = server.client("sagemaker-runtime")
    accepted: dict[str, str] = runtime.invoke_endpoint_async(
        EndpointName=name, Body=body, ContentType="text/plain", **members
    )
    runtime.close()
    return accepted


def show(server: MoorageServer, id: str) -> dict[str, Any]:
    (shown,) = private_routes(server).ask("GET", "async/invocation", id=id)["Invocations"]
    assert isinstance(shown, dict)
    return shown


def wait_for(server: MoorageServer, id: str, status: str) -> None:
    eventually(lambda: show(server, id)["Status"] == status, what=lambda: f"{id}: {show(server, id)}")


@contextmanager
def busy(server: MoorageServer, name: str, gate: Path) -> Iterator[str]:
    """The endpoint's instance is taken while the block lasts; the id of the invocation that takes it."""
    id = invoke(server, name, f"until {gate}")["InferenceId"]
    try:
        wait_for(server, id, "Running")
        yield id
    finally:
        gate.touch()
    wait_for(server, id, "Completed")


def start_waiting(
    server: MoorageServer, name: str, *arguments: str, **options: Any
) -> "subprocess.Popen[str]":
    command = [*(sys.executable, "-m", "moorage", "invoke", name, "--async", "--wait", *TEXT), *arguments]
    return subprocess.Popen(
        [*command, "--data-dir", str(server.data_dir)],
        **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options),
    )


# --- moorage invoke --async -----------------------------------------------------------------------------


def test_invoke_tells_where_the_result_is_going_to_be(server: MoorageServer, endpoint: str) -> None:
    done = moorage(
        server, "invoke", endpoint, "--async", *TEXT, "--body", "boats", "--inference-id", "a name of my own"
    )
    assert done.returncode == 0, done.stderr
    told = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert told["InferenceId"] == "a name of my own"
    assert told["OutputLocation"].startswith("s3://cli-async/out/")
    assert told["FailureLocation"].startswith("s3://cli-async/failed/")
    wait_for(server, "a name of my own", "Completed")
    key = told["OutputLocation"].removeprefix("s3://cli-async/")
    assert server.client("s3").get_object(Bucket="cli-async", Key=key)["Body"].read() == b"staob"


def test_wait_prints_the_result(server: MoorageServer, endpoint: str, tmp_path: Path) -> None:
    file = tmp_path / "boats"
    file.write_text("boats")
    done = moorage(server, "invoke", endpoint, "--async", "--wait", *TEXT, "--file", str(file))
    assert (done.returncode, done.stdout) == (0, "staob")
    assert done.stderr.splitlines()[-1] == "Completed"
    done = moorage(server, "invoke", endpoint, "--async", "--wait", *TEXT, "--file", "-", stdin="stdin")
    assert (done.returncode, done.stdout) == (0, "nidts")
    done = moorage(server, "invoke", endpoint, "--async", "--wait", *TEXT, "--file", str(file), "--json")
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert (document["Status"], document["Body"], document["Attempts"]) == ("Completed", "staob", 1)


def test_wait_prints_why_it_failed(server: MoorageServer, endpoint: str) -> None:
    done = moorage(server, "invoke", endpoint, "--async", "--wait", *TEXT, "--body", "fail")
    assert (done.returncode, done.stdout) == (1, "")
    assert "moorage: Received server error (500) from primary" in done.stderr
    assert "as you wish" in done.stderr
    done = moorage(server, "invoke", endpoint, "--async", "--wait", *TEXT, "--body", "fail", "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["Status"] == "Failed"
    assert "as you wish" in document["Reason"]


@pytest.mark.parametrize(("size", "inline"), [(128_000, True), (128_001, False)])
def test_a_long_body_goes_by_way_of_s3(
    server: MoorageServer, endpoint: str, tmp_path: Path, size: int, inline: bool
) -> None:
    file = tmp_path / "much, and ü.txt"
    file.write_bytes(b"a" * (size - 1) + b"z")
    done = moorage(server, "invoke", endpoint, "--async", "--wait", *TEXT, "--file", str(file), "--json")
    document = json.loads(done.stdout)
    assert (document["Status"], len(document["Body"]), document["Body"][0]) == ("Completed", size, "z")
    assert document["ContentType"] == "text/plain"
    if inline:
        assert "InputLocation" not in document
    else:
        assert document["InputLocation"].startswith("s3://cli-async/async-inputs/")
        assert document["InputLocation"].endswith("/much__and__.txt")


def test_an_object_that_is_there_already(server: MoorageServer, endpoint: str) -> None:
    server.client("s3").put_object(Bucket="cli-async", Key="in/boats.txt", Body=b"boats")
    location = "s3://cli-async/in/boats.txt"
    done = moorage(server, "invoke", endpoint, "--async", "--wait", "--input-location", location)
    assert (done.returncode, done.stdout) == (0, "staob")
    done = moorage(server, "invoke", endpoint, "--async", "--wait", "--input-location", location + "x")
    assert done.returncode == 1
    assert f"there is no object {location}x" in done.stderr


def test_options_that_exclude_each_other(server: MoorageServer, endpoint: str) -> None:
    def told(*arguments: str) -> str:
        done = moorage(server, "invoke", endpoint, *arguments)
        assert done.returncode == 2, arguments
        return done.stderr

    together = "moorage: --async cannot be combined with --stream or --target-variant\n"
    assert told("--async", "--body", "x", "--stream") == together
    assert told("--async", "--body", "x", "--target-variant", "AllTraffic") == together
    only = "moorage: --wait, --input-location and --timeout are for --async\n"
    assert told("--body", "x", "--wait") == only
    assert told("--input-location", "s3://a/b") == only
    one = "moorage: give the request's body with one of --body, --file and --input-location\n"
    assert told("--async") == one
    assert told("--async", "--body", "x", "--input-location", "s3://a/b") == one
    assert (
        told("--async", "--file", "/not/there")
        == "moorage: cannot read /not/there: No such file or directory\n"
    )


def test_an_endpoint_that_is_not_there_or_not_asynchronous(server: MoorageServer, tmp_path: Path) -> None:
    done = moorage(server, "invoke", "nobody", "--async", "--body", "x")
    assert done.returncode == 1
    assert "Endpoint nobody of account 000000000000 not found." in done.stderr
    file = tmp_path / "much"
    file.write_bytes(bytes(128_001))
    done = moorage(server, "invoke", "nobody", "--async", "--file", str(file))
    assert done.returncode == 1
    assert "Could not find endpoint" in done.stderr


def test_an_interrupted_wait_leaves_the_invocation(
    server: MoorageServer, endpoint: str, tmp_path: Path
) -> None:
    with busy(server, endpoint, tmp_path / "gate"):
        waiting = start_waiting(server, endpoint, "--body", "boats", "--inference-id", "left alone")
        assert waiting.stderr is not None
        assert waiting.stderr.readline() == "left alone is accepted\n"
        assert waiting.stderr.readline() == "Queued\n"
        waiting.send_signal(signal.SIGINT)
        _, told = waiting.communicate(timeout=30)
        assert waiting.returncode == 130
        assert told.endswith("Look at it with: moorage async show 'left alone'\n")
        assert show(server, "left alone")["Status"] == "Queued"
    wait_for(server, "left alone", "Completed")


def test_a_terminal_sees_how_it_goes(server: MoorageServer, endpoint: str, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    seen = b""
    with busy(server, endpoint, tmp_path / "gate"):
        waiting = start_waiting(
            server, endpoint, "--body", "boats", stderr=theirs, env={**os.environ, "TERM": "xterm"}
        )
        os.close(theirs)
        while b"1 queued, 1 running" not in seen:
            seen += os.read(ours, 4096)
    assert waiting.communicate(timeout=30)[0] == "staob"
    assert waiting.returncode == 0
    os.close(ours)


def test_a_wait_outlives_the_server(new_server: Callable[..., MoorageServer], tmp_path: Path) -> None:
    server = new_server()
    deploy(server, "lasting", {"S3OutputPath": "s3://lasting/out"})
    gate = tmp_path / "gate"
    waiting = start_waiting(server, "lasting", "--body", f"until {gate}")
    assert waiting.stderr is not None
    while not (line := waiting.stderr.readline()).startswith("Running since "):
        assert line
    server.kill()
    assert waiting.stderr.readline() == "the server does not answer; waiting for it\n"
    gate.touch()
    server.start()
    result, told = waiting.communicate(timeout=60)
    assert (waiting.returncode, result) == (0, f"until {gate}"[::-1])
    assert told.endswith("Completed\n")


# --- moorage async --------------------------------------------------------------------------------------


def test_list(server: MoorageServer, endpoint: str, tmp_path: Path) -> None:
    with busy(server, endpoint, tmp_path / "gate") as running:
        queued = invoke(server, endpoint, "boats")["InferenceId"]
        backlogs = json.loads(moorage(server, "async", "list", "--json").stdout)
        (backlog,) = [each for each in backlogs if each["EndpointName"] == endpoint]
        assert (backlog["Counts"]["Queued"], backlog["Counts"]["Running"]) == (1, 1)
        assert backlog["OldestSeconds"] > 0
        listed = moorage(server, "async", "list").stdout.splitlines()
        assert listed[0].split() == [
            *(
                "Endpoint",
                "Queued",
                "Running",
                "Completed",
                "Failed",
                "Expired",
                "Oldest",
                "In/min",
                "Out/min",
            )
        ]
        assert any(line.split()[:3] == [endpoint, "1", "1"] for line in listed)

        listed = moorage(server, "async", "list", endpoint).stdout.splitlines()
        assert listed[1].split()[:3] == [endpoint, "1", "1"]
        assert [line.split()[:2] for line in listed[4:6]] == [[queued, "Queued"], [running, "Running"]]
        done = moorage(server, "async", "list", endpoint, "--status", "running", "--json")
        document = json.loads(done.stdout)
        assert [each["InferenceId"] for each in document["Invocations"]] == [running]
        assert [each["EndpointName"] for each in document["Backlogs"]] == [endpoint]
        done = moorage(server, "async", "list", endpoint, "--limit", "1", "--json")
        assert [each["InferenceId"] for each in json.loads(done.stdout)["Invocations"]] == [queued]
        done = moorage(server, "async", "list", "--status", "Queued")
        assert [line.split()[:3] for line in done.stdout.splitlines()[1:]] == [[queued, endpoint, "Queued"]]


def test_show(server: MoorageServer, endpoint: str) -> None:
    twice = [invoke(server, endpoint, "fail", InferenceId="twice") for _ in range(2)]
    for each in twice:
        id = each["OutputLocation"].split("/")[-1].removesuffix(".out")
        wait_for(server, id, "Failed")
    shown = json.loads(moorage(server, "async", "show", "twice", "--json").stdout)
    assert [each["OutputLocation"] for each in shown] == [each["OutputLocation"] for each in twice[::-1]]
    for operation in ("retry", "cancel"):
        done = moorage(server, "async", operation, "twice")
        assert done.returncode == 1
        assert "2 invocations have the inference id twice." in done.stderr
    first, second = moorage(server, "async", "show", "twice").stdout.split("\n\n", 1)[0].splitlines()[:2]
    assert first == f"{shown[0]['InvocationId']}  Failed"
    assert second.split() == ["endpoint", endpoint]
    assert "as you wish" in moorage(server, "async", "show", shown[0]["InvocationId"]).stdout


def test_what_is_not_there(server: MoorageServer, endpoint: str) -> None:
    for operation in ("show", "retry", "cancel"):
        done = moorage(server, "async", operation, "nothing")
        assert done.returncode == 1
        assert "There is no asynchronous invocation nothing." in done.stderr
    done = moorage(server, "async", "list", "nobody")
    assert done.returncode == 1
    assert "Could not find endpoint" in done.stderr


def test_cancel_and_retry(server: MoorageServer, endpoint: str, tmp_path: Path) -> None:
    with busy(server, endpoint, tmp_path / "gate") as running:
        accepted = invoke(server, endpoint, "boats", InferenceId="changed my mind")
        done = moorage(server, "async", "cancel", "changed my mind")
        assert (done.returncode, done.stdout) == (0, "changed my mind is cancelled.\n"), done.stderr
        shown = show(server, "changed my mind")
        assert shown["Status"] == "Failed"
        assert shown["Reason"].startswith("Cancelled by arn:aws:iam::000000000000:")
        key = accepted["FailureLocation"].removeprefix("s3://cli-async/")
        failure = server.client("s3").get_object(Bucket="cli-async", Key=key)["Body"].read()
        assert failure.decode() == shown["Reason"]
        done = moorage(server, "async", "cancel", running)
        assert done.returncode == 1
        assert "what is running cannot be cancelled" in done.stderr
        assert moorage(server, "async", "retry", running).returncode == 1

        done = moorage(server, "async", "retry", "changed my mind")
        assert (done.returncode, done.stdout) == (0, "changed my mind is queued again.\n"), done.stderr
    wait_for(server, "changed my mind", "Completed")
    s3 = server.client("s3")
    assert "Contents" not in s3.list_objects_v2(Bucket="cli-async", Prefix=key), "no failure is left"


def test_retry_all_that_failed(server: MoorageServer, endpoint: str) -> None:
    ids = [invoke(server, endpoint, "fail")["InferenceId"] for _ in range(2)]
    for id in ids:
        wait_for(server, id, "Failed")
    before = [show(server, id)["Attempts"] for id in ids]
    done = moorage(server, "async", "retry", "--endpoint", endpoint, "--all-failed", "--json")
    assert json.loads(done.stdout)["Retried"] >= 2
    for id, attempts in zip(ids, before, strict=True):
        eventually(lambda id=id, attempts=attempts: show(server, id)["Attempts"] == attempts + 1)  # type: ignore[misc]
        wait_for(server, id, "Failed")


@pytest.mark.parametrize(
    "arguments", [(), ("--all-failed",), ("--endpoint", "x"), ("id", "--endpoint", "x", "--all-failed")]
)
def test_retry_wants_to_know_what(server: MoorageServer, arguments: tuple[str, ...]) -> None:
    done = moorage(server, "async", "retry", *arguments)
    assert done.returncode == 2
    assert "either an ID, or --endpoint NAME with --all-failed" in done.stderr


def test_purge(server: MoorageServer, endpoint: str) -> None:
    id = invoke(server, endpoint, "boats")["InferenceId"]
    wait_for(server, id, "Completed")
    done = moorage(server, "async", "purge", "--endpoint", endpoint)
    assert (done.returncode, done.stderr) == (2, "moorage: there is nobody to ask; say --yes\n")
    done = moorage(server, "async", "purge", "--older-than", "1 fortnight", "--yes")
    assert done.returncode == 2
    done = moorage(server, "async", "purge", "--yes")
    assert (done.returncode, done.stdout) == (0, "Forgotten: 0.\n")
    done = moorage(server, "async", "purge", "--endpoint", endpoint, "--older-than", "0s", "--yes", "--json")
    assert json.loads(done.stdout)["Forgotten"] >= 1
    assert moorage(server, "async", "show", id).returncode == 1
