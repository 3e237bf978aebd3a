"""The SageMaker Python SDK, unmodified: `AsyncPredictor` and its waiters, in an environment that has the SDK.

That environment is made once for each `requirements/sagemaker-sdk.txt`, beside the packages of our own.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers import MODELHOST, ROLE, MoorageServer

pytestmark = pytest.mark.timeout(600)  # the first run installs the SDK

LOCK = Path(__file__).parents[2] / "requirements" / "sagemaker-sdk.txt"
PROGRAM = Path(__file__).with_name("sagemaker_sdk_program.py")
BUCKET = "sdk-results"

MODEL = {
    "code/inference.py": """
import json, time

def model_fn(model_dir):
    return None

def transform_fn(model, body, content_type, accept, context):
    document = json.loads(body)
    time.sleep(document.get("sleep", 0))
    if "raise" in document:
        raise ValueError(document["raise"])
    attributes = dict(context.get_all_request_header()).get("x-amzn-sagemaker-custom-attributes")
    reply = {"text": document.get("text", "")[::-1], "content_type": content_type, "attributes": attributes}
    return json.dumps(reply), "application/json"
"""
}
BROKEN = {"code/inference.py": "def model_fn(model_dir):\n    raise RuntimeError('no weights in here')\n"}


@pytest.fixture(scope="session")
def sdk_python() -> Path:
    """The interpreter of an environment with the SDK."""
    digest = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = Path(sys.prefix) / f"sagemaker-sdk-{digest}"
    python = folder / "bin" / "python"
    complete = folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        install = [sys.executable, str(LOCK.with_name("install.py")), str(folder), str(LOCK)]
        installed = subprocess.run(install, capture_output=True, text=True, check=False)
        if installed.returncode:
            reason = f"the SageMaker SDK cannot be installed: {installed.stderr[-500:]}"
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
        complete.touch()
    return python


@pytest.fixture(scope="module")
def said(sdk_python: Path, server: MoorageServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the program printed."""
    server.client("s3").create_bucket(Bucket=BUCKET)
    home = tmp_path_factory.mktemp("home")
    urls = [server.upload("sdk", MODEL), server.upload("sdk-broken", BROKEN)]
    ran = subprocess.run(
        [str(sdk_python), str(PROGRAM), MODELHOST, ROLE, BUCKET, *urls],
        env={"PATH": os.environ["PATH"], "HOME": str(home), **exports(server)},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr + ran.stdout
    document: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return document


def exports(server: MoorageServer) -> dict[str, str]:
    """What `moorage env` tells a shell to set."""
    command = [sys.executable, "-m", "moorage", "env", "--data-dir", str(server.data_dir)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    words = [shlex.split(line) for line in lines if line.startswith("export ")]
    return dict(pair.split("=", 1) for _, *pairs in words for pair in pairs)


def reply(text: str, **members: Any) -> dict[str, Any]:
    return {"text": text, "content_type": "application/json", "attributes": None, **members}


def test_model_deploy_makes_an_asynchronous_endpoint(said: dict[str, Any]) -> None:
    assert said["version"].startswith("2.")
    assert said["config"] == {
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 2},
        "OutputConfig": {"S3OutputPath": f"s3://{BUCKET}/out", "S3FailurePath": f"s3://{BUCKET}/failed"},
    }


def test_predict_uploads_invokes_and_waits(said: dict[str, Any]) -> None:
    assert said["predict"] == reply("staob")
    assert said["its input"].startswith(f"s3://{BUCKET}-default/async-endpoint-inputs/")
    assert said["predict, from S3"] == reply("spihs")


def test_predict_async_tells_where_and_get_result_gets_it(said: dict[str, Any]) -> None:
    output, failure = said["predict_async"]
    assert output.startswith(f"s3://{BUCKET}/out/")
    assert failure.startswith(f"s3://{BUCKET}/failed/")
    result = reply("spihs", attributes="a=1")
    assert said["get_result, waiting"] == said["get_result, again"] == said["get_result, at once"] == result


def test_a_result_that_is_not_there_yet_is_told_from_a_failure(said: dict[str, Any]) -> None:
    assert "Inference could still be running" in said["get_result, too early"]
    assert "Inference could still be running" in said["get_result, waited in vain"]
    assert said["get_result, in the end"] == reply("")


def test_a_failure_is_an_asyncinferencemodelerror(said: dict[str, Any]) -> None:
    assert 'Received server error (500) from primary with message "' in said["predict, failing"]
    assert "ValueError: no such column" in said["predict, failing"]
    assert "ValueError: no such row" in said["get_result, failing"]
    assert said["get_result, failed"] == said["get_result, failing"]


def test_a_deployment_that_fails_is_an_unexpectedstatusexception(said: dict[str, Any]) -> None:
    assert "no weights in here" in said["deploy, failing"]
