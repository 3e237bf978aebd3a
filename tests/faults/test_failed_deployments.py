"""A deployment that fails says so at once, and why."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.servers import MODELHOST, MoorageServer

CONTAINER = """
import http.server, os, signal, sys, time
kind = sys.argv[1]
print(f"container of kind {kind} begins", flush=True)
port = int(os.environ["SAGEMAKER_BIND_TO_PORT"])
if kind == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if kind == "closed":
    time.sleep(600)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if kind == "sick" else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *args):
        pass

if kind == "elsewhere":
    import socket
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
STARTUP_TIMEOUT = 3.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MoorageServer]:
    """A server with a short start-up timeout, and a table of images that stand for broken containers."""
    folder = tmp_path_factory.mktemp("failing")
    script = folder / "container.py"
    script.write_text(CONTAINER)
    kinds = ("killed", "closed", "sick", "elsewhere")
    lines = [f'"broken/{kind}" = ["{{python}}", "{script}", "{kind}"]' for kind in kinds]
    lines.append('"broken/absent" = "/no/such/program serve"')
    config = folder / "moorage.toml"
    config.write_text(f"startup_timeout_seconds = {STARTUP_TIMEOUT}\n[images]\n" + "\n".join(lines) + "\n")
    running = MoorageServer(folder / "data", arguments=("--config", str(config))).start()
    yield running
    assert running.stop() == 0
    assert not running.processes()


def failed(server: MoorageServer, name: str, **options: Any) -> tuple[str, float]:
    """The FailureReason of an endpoint that fails, and how many seconds after the request it did."""
    files: Mapping[str, str | bytes] = options.pop("files", {})
    server.create(name, files, **options)
    began = time.monotonic()
    endpoint = server.wait_for(name, "InService", "Failed")
    assert endpoint["EndpointStatus"] == "Failed"
    reason: str = endpoint["FailureReason"]
    assert len(reason) <= 1024
    server.client("sagemaker").delete_endpoint(EndpointName=name)
    return reason, time.monotonic() - began


def code(text: str) -> dict[str, Any]:
    return {"files": {"code/inference.py": text}, "image": MODELHOST}


def test_import_error_in_user_code(server: MoorageServer) -> None:
    reason, _ = failed(server, "import-error", **code("import a_module_that_is_not_there\n"))
    assert 'container "primary" for production variant AllTraffic exited with status 1' in reason
    assert "ModuleNotFoundError: No module named 'a_module_that_is_not_there'" in reason
    assert "code/requirements.txt" in reason


def test_exception_in_model_fn(server: MoorageServer) -> None:
    reason, _ = failed(
        server, "bad-model-fn", **code("def model_fn(model_dir):\n    raise ValueError('upside down')\n")
    )
    assert "ValueError: upside down" in reason
    assert 'inference.py", line 2, in model_fn' in reason


def test_out_of_memory(server: MoorageServer) -> None:
    reason, _ = failed(server, "memory", **code("def model_fn(model_dir):\n    raise MemoryError\n"))
    assert "ran out of memory" in reason


def test_wrong_entry_point(server: MoorageServer) -> None:
    options = code("def model_fn(model_dir):\n    return 1\n")
    reason, _ = failed(server, "entry-point", environment={"SAGEMAKER_PROGRAM": "serve.py"}, **options)
    assert "serve.py" in reason


def test_nothing_to_serve(server: MoorageServer) -> None:
    reason, _ = failed(server, "nothing", files={"readme.txt": "no model here"}, image=MODELHOST)
    assert "There is nothing to serve" in reason


def test_missing_artifact(server: MoorageServer) -> None:
    url = server.upload("vanishing", {"model.joblib": b""})
    sagemaker = server.client("sagemaker")
    container = {"Image": MODELHOST, "ModelDataUrl": url}
    sagemaker.create_model(
        ModelName="vanishing", PrimaryContainer=container, ExecutionRoleArn="arn:aws:iam::000000000000:role/x"
    )
    variant = {
        "VariantName": "v",
        "ModelName": "vanishing",
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
    }
    sagemaker.create_endpoint_config(EndpointConfigName="vanishing", ProductionVariants=[variant])
    server.client("s3").delete_object(Bucket="models", Key="vanishing/model.tar.gz")
    sagemaker.create_endpoint(EndpointName="vanishing", EndpointConfigName="vanishing")
    endpoint = server.wait_for("vanishing", "Failed")
    assert 'Failed to download model data for container "primary"' in endpoint["FailureReason"]
    assert url in endpoint["FailureReason"]


def test_not_an_archive(server: MoorageServer) -> None:
    s3 = server.client("s3")
    server.configure("no-archive", {"model.joblib": b""})
    s3.put_object(Bucket="models", Key="no-archive/model.tar.gz", Body=b"this is no archive")
    server.client("sagemaker").create_endpoint(EndpointName="no-archive", EndpointConfigName="no-archive")
    endpoint = server.wait_for("no-archive", "Failed")
    assert 'Failed to extract model data archive for container "primary"' in endpoint["FailureReason"]


def test_unknown_image_says_how_to_map_it(server: MoorageServer) -> None:
    reason, seconds = failed(server, "unknown-image", image="registry.example/team/model:3")
    assert "registry.example/team/model" in reason
    assert "[images]" in reason
    assert seconds < 2


def test_killed_container(server: MoorageServer) -> None:
    reason, seconds = failed(server, "killed", image="broken/killed")
    assert "was killed by signal 9 (SIGKILL)" in reason
    assert "container of kind killed begins" in reason
    assert seconds < 2


def test_command_that_does_not_exist(server: MoorageServer) -> None:
    reason, seconds = failed(server, "absent", image="broken/absent")
    assert "/no/such/program" in reason
    assert seconds < 2


@pytest.mark.parametrize(
    ("kind", "says"),
    [("closed", "did not open port"), ("sick", "503"), ("elsewhere", "listens on")],
)
def test_never_healthy(server: MoorageServer, kind: str, says: str) -> None:
    """The fact here is the end of the time that the container has."""
    reason, seconds = failed(server, f"never-{kind}", image=f"broken/{kind}")
    assert f"did not pass the ping health check within {STARTUP_TIMEOUT:g} seconds" in reason
    assert says in reason
    assert f"container of kind {kind} begins" in reason
    assert seconds < STARTUP_TIMEOUT + 2


def test_failed_update_keeps_the_old_deployment(server: MoorageServer) -> None:
    good = "def model_fn(d):\n    return 1\ndef transform_fn(m, b, c, a):\n    return 'good', 'text/plain'\n"
    server.deploy("kept", {"code/inference.py": good})
    server.configure("kept-broken", {"code/inference.py": "raise RuntimeError('newer is not better')\n"})
    server.client("sagemaker").update_endpoint(EndpointName="kept", EndpointConfigName="kept-broken")
    endpoint = server.wait_for("kept", "InService")
    assert "newer is not better" in endpoint["FailureReason"]
    assert endpoint["EndpointConfigName"] == "kept"
    reply = server.client("sagemaker-runtime").invoke_endpoint(EndpointName="kept", Body=b"x")
    assert reply["Body"].read() == b"good"
