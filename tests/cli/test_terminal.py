"""What containers print and answer, on a terminal and in a pipe."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.servers import MoorageServer

HOSTILE = "\x1b]0;owned\x07\x1b[2J \x9b31m \u202e \x07 end"
SPELT = r"\x1b]0;owned\x07\x1b[2J \u009b31m \u202e \x07 end"
MODEL = {
    "code/inference.py": f"""
TEXT = {HOSTILE!a}

def model_fn(model_dir):
    print("log:", TEXT, flush=True)

def transform_fn(model, body, content_type, accept):
    if "fail" in str(body):
        raise ValueError(TEXT)
    return TEXT.encode() + b"\\xff", "text/plain"
"""
}
BROKEN = {"code/inference.py": f"raise RuntimeError({HOSTILE!a})\n"}


@pytest.fixture(scope="module")
def hostile(server: MoorageServer) -> Iterator[str]:
    server.deploy("cli-hostile", MODEL)
    yield "cli-hostile"
    server.client("sagemaker").delete_endpoint(EndpointName="cli-hostile")


def command(server: MoorageServer, *arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    # Of a terminal that knows no colours: rich styles nothing, so all control characters are others'.
    environment |= {"TERM": "dumb", "PYTHONIOENCODING": "utf-8"}
    return [sys.executable, "-m", "moorage", *arguments, "--data-dir", str(server.data_dir)], environment


def on_terminal(server: MoorageServer, *arguments: str) -> str:
    """What a command writes to its terminal."""
    argv, environment = command(server, *arguments)
    ours, its = os.openpty()
    try:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=its, stderr=its, env=environment)
    finally:
        os.close(its)
    written = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        try:
            while data := terminal.read(65536):
                written += data
        except OSError:  # EIO: nobody has the other side open any more
            pass
    process.wait(timeout=60)
    return written.replace(b"\r\n", b"\n").decode("utf-8", "surrogateescape")


def in_pipe(server: MoorageServer, *arguments: str) -> bytes:
    argv, environment = command(server, *arguments)
    return subprocess.run(argv, capture_output=True, env=environment, timeout=60, check=True).stdout


def test_logs_are_spelt_out_on_a_terminal_and_raw_elsewhere(server: MoorageServer, hostile: str) -> None:
    shown = on_terminal(server, "logs", hostile)
    assert f"log: {SPELT}\n" in shown
    assert shown.replace("\n", "").replace("\t", "").isprintable()
    assert f"log: {HOSTILE}\n" in on_terminal(server, "logs", hostile, "--raw")
    assert f"log: {HOSTILE}\n".encode() in in_pipe(server, "logs", hostile)


def test_results_are_spelt_out_on_a_terminal_and_raw_elsewhere(server: MoorageServer, hostile: str) -> None:
    raw = HOSTILE.encode() + b"\xff"
    for way in ([], ["--stream"]):
        arguments = ["invoke", hostile, "--body", "x", *way]
        shown = on_terminal(server, *arguments)
        assert shown.startswith(SPELT + r"\xff" + "\n")
        assert on_terminal(server, *arguments, "--raw").startswith(raw.decode("utf-8", "surrogateescape"))
        assert in_pipe(server, *arguments) == raw


def test_errors_are_spelt_out(server: MoorageServer, hostile: str) -> None:
    shown = on_terminal(server, "invoke", hostile, "--body", "fail")
    assert "ModelError" in shown
    assert SPELT in shown
    assert shown.replace("\n", "").isprintable()


def test_failure_reasons_are_harmless(server: MoorageServer) -> None:
    server.create("cli-hostile-broken", BROKEN)
    server.wait_for("cli-hostile-broken", "Failed")
    shown = on_terminal(server, "describe", "cli-hostile-broken")
    assert "RuntimeError" in shown
    assert shown.replace("\n", "").isprintable()
    server.client("sagemaker").delete_endpoint(EndpointName="cli-hostile-broken")
