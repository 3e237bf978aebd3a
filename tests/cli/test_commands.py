"""The commands as a person or a script runs them: what they print, and their exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers import MoorageServer, eventually, pack

MODEL = {
    "code/inference.py": """
def model_fn(model_dir):
    print("the model has been loaded")

def transform_fn(model, body, content_type, accept):
    if bytes(body) == b"fail":
        raise ValueError("as you wish")
    return bytes(body)[::-1], "text/plain"
"""
}


def moorage(
    server: MoorageServer, *arguments: str, stdin: str | None = None
) -> "subprocess.CompletedProcess[str]":
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    return subprocess.run(
        [sys.executable, "-m", "moorage", *arguments, "--data-dir", str(server.data_dir)],
        input=stdin,
        capture_output=True,
        text=True,
        env=environment,
        timeout=100,
    )


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "code").mkdir()
    (folder / "code" / "inference.py").write_text(MODEL["code/inference.py"])
    return folder


@pytest.fixture(scope="module")
def deployed(server: MoorageServer, model_dir: Path) -> str:
    done = moorage(server, "deploy", str(model_dir), "--name", "cli-shared")
    assert done.returncode == 0, done.stderr
    assert "cli-shared is InService after" in done.stdout
    return "cli-shared"


def test_env_is_safe_for_a_shell(server: MoorageServer) -> None:
    script = f'eval "$({sys.executable} -m moorage env --data-dir {server.data_dir})"; echo "$AWS_SECRET_ACCESS_KEY"'
    shown = subprocess.run(["sh", "-c", f"{script}; echo $AWS_ENDPOINT_URL"], capture_output=True, text=True)
    assert shown.stdout.split() == [server.key.secret_access_key, server.url]


def test_invoke(server: MoorageServer, deployed: str, tmp_path: Path) -> None:
    done = moorage(server, "invoke", deployed, "--body", "boats", "--content-type", "text/plain")
    assert (done.returncode, done.stdout) == (0, "staob")
    file = tmp_path / "body"
    file.write_text("from a file")
    done = moorage(server, "invoke", deployed, "--file", str(file), "--content-type", "text/plain", "--json")
    assert json.loads(done.stdout)["Body"] == "elif a morf"
    assert json.loads(done.stdout)["InvokedProductionVariant"] == "AllTraffic"
    done = moorage(server, "invoke", deployed, "--file", "-", "--content-type", "text/plain", stdin="stdin")
    assert done.stdout == "nidts"


def test_invoke_tells_what_the_model_said(server: MoorageServer, deployed: str) -> None:
    done = moorage(server, "invoke", deployed, "--body", "fail", "--content-type", "text/plain")
    assert done.returncode == 1
    assert done.stderr.startswith("moorage: ModelError: Received server error (500) from primary")
    assert "as you wish" in done.stderr


def test_invoke_wants_one_body(server: MoorageServer, deployed: str) -> None:
    assert moorage(server, "invoke", deployed).returncode == 2
    assert moorage(server, "invoke", deployed, "--body", "x", "--file", "y").returncode == 2
    assert moorage(server, "invoke", deployed, "--file", "/not/there").returncode == 2


def test_unknown_endpoint(server: MoorageServer) -> None:
    done = moorage(server, "invoke", "nobody", "--body", "x")
    assert done.returncode == 1
    assert "Endpoint nobody of account 000000000000 not found." in done.stderr
    assert moorage(server, "describe", "nobody").returncode == 1
    assert moorage(server, "logs", "nobody").returncode == 1
    assert moorage(server, "delete", "nobody").returncode == 1


def test_metrics(server: MoorageServer, deployed: str) -> None:
    runtime = server.client("sagemaker-runtime")
    runtime.invoke_endpoint(EndpointName=deployed, Body=b"abc")
    shown: list[dict[str, Any]] = []

    def counted() -> bool:
        shown[:] = json.loads(moorage(server, "metrics", deployed, "--json").stdout)
        return bool(shown[0]["Invocations"])

    eventually(counted, what=lambda: str(shown))
    [variant] = shown
    assert (variant["EndpointName"], variant["VariantName"]) == (deployed, "AllTraffic")
    assert 0 < variant["OverheadLatency"]["p50"] <= variant["OverheadLatency"]["p99"]
    assert variant["ModelLatency"]["SampleCount"] >= 1
    heading, row = moorage(server, "metrics", deployed).stdout.splitlines()
    assert "ModelLatency p50/p90/p99" in heading
    assert row.split()[:2] == [deployed, "AllTraffic"]
    assert moorage(server, "metrics", "nobody").returncode == 1


def test_endpoints_and_describe(server: MoorageServer, deployed: str) -> None:
    listed = moorage(server, "endpoints")
    assert deployed in listed.stdout
    names = [each["EndpointName"] for each in json.loads(moorage(server, "endpoints", "--json").stdout)]
    assert deployed in names
    shown = moorage(server, "describe", deployed).stdout
    assert "1 of 1 instances in service" in shown
    described = json.loads(moorage(server, "describe", deployed, "--json").stdout)
    assert described["EndpointStatus"] == "InService"


def test_logs(server: MoorageServer, deployed: str) -> None:
    done = moorage(server, "logs", deployed)
    assert done.returncode == 0
    assert "the model has been loaded" in done.stdout
    entry = json.loads(moorage(server, "logs", deployed, "--json").stdout.splitlines()[0])
    assert entry["variant"] == "AllTraffic"


def test_logs_follow(server: MoorageServer, deployed: str) -> None:
    follower = subprocess.Popen(
        [sys.executable, "-m", "moorage", "logs", deployed, "--follow", "--data-dir", str(server.data_dir)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert follower.stdout is not None
        assert follower.stdout.readline()
        moorage(server, "invoke", deployed, "--body", "fail", "--content-type", "text/plain")
        while "as you wish" not in (line := follower.stdout.readline()):
            assert line
    finally:
        follower.terminate()
        follower.wait(10)
        assert follower.stdout is not None
        follower.stdout.close()


def test_deploy_updates_an_endpoint_that_exists(server: MoorageServer, tmp_path: Path) -> None:
    archive = tmp_path / "model.tar.gz"
    archive.write_bytes(pack({"code/inference.py": MODEL["code/inference.py"]}))
    assert moorage(server, "deploy", str(archive), "--name", "cli-updated").returncode == 0
    archive.write_bytes(pack({"code/inference.py": MODEL["code/inference.py"].replace("[::-1]", ".upper()")}))
    again = moorage(server, "deploy", str(archive), "--name", "cli-updated", "--instances", "2", "--json")
    assert json.loads(again.stdout)["EndpointName"] == "cli-updated", again.stderr
    done = moorage(server, "invoke", "cli-updated", "--body", "boats", "--content-type", "text/plain")
    assert done.stdout == "BOATS"
    assert moorage(server, "delete", "cli-updated").returncode == 0
    models = server.client("sagemaker").list_models(NameContains="cli-updated")["Models"]
    assert len(models) == 1, "only what the endpoint was made of last is deleted with it"


def test_deploy_says_why_it_failed(server: MoorageServer, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "inference.py").write_text("import nothing_of_that_name\n")
    done = moorage(server, "deploy", str(tmp_path), "--name", "cli-broken")
    assert done.returncode == 1
    assert "No module named 'nothing_of_that_name'" in done.stderr
    assert "moorage logs cli-broken" in done.stderr
    assert moorage(server, "delete", "cli-broken").returncode == 0
    eventually(lambda: "cli-broken" not in moorage(server, "endpoints").stdout)


def test_deploy_wants_what_is_there(server: MoorageServer, tmp_path: Path) -> None:
    assert moorage(server, "deploy", str(tmp_path / "absent"), "--name", "x").returncode == 2
    assert moorage(server, "deploy", str(tmp_path), "--name", "x", "--env", "novalue").returncode == 2


def test_without_a_server(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "moorage", "endpoints", "--data-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if not key.startswith("AWS_")},
    )
    assert done.returncode == 1
    assert "`moorage serve`" in done.stderr
