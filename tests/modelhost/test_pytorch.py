"""The images for PyTorch. Predictions are compared with those of torch itself."""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import frameworks

from .hosts import Host, Starter

JSON = "application/json"
CSV = "text/csv"
NPY = "application/x-npy"
TRAIN = frameworks.ROOT / "examples" / "torch" / "train.py"

ROWS = [[0.0, 0.1], [0.9, -0.9], [0.4, 0.2]]
_POINTS = "\n".join(",".join(map(str, row)) for row in ROWS)

_MAKE = """
import importlib.util, json, sys
from pathlib import Path
import torch
spec = importlib.util.spec_from_file_location("train", sys.argv[1])
train = importlib.util.module_from_spec(spec)
spec.loader.exec_module(train)
root = Path(sys.argv[2])
network = train.train(root / "example" / "model").eval()
for name in ("script", "several", "eager"):
    (root / name / "model").mkdir(parents=True)
torch.jit.script(network).save(str(root / "script" / "model" / "circle.pth"))


class Echo(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training and not torch.is_grad_enabled()
        return x


echo = torch.jit.script(Echo())
for name in ("model.pt", "other.pt"):
    echo.save(str(root / "several" / "model" / name))
torch.save(network, root / "eager" / "model" / "model.pth")
with torch.no_grad():
    print(json.dumps(network(torch.tensor(json.loads(sys.argv[3]))).tolist()))
"""


class Models:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.expected: list[float] = frameworks.run(_MAKE, str(TRAIN), str(root), json.dumps(ROWS))
        self._hosts: dict[str, Host] = {}

    def host(self, name: str, **environ: str) -> Host:
        if name not in self._hosts:
            self._hosts[name] = start(self.root / name, **environ)
        return self._hosts[name].wait_ready()

    def close(self) -> None:
        for host in self._hosts.values():
            end(host)


def start(base: Path, **environ: str) -> Host:
    chosen = {"MOORAGE_MODEL_FAMILY": "pytorch", "OMP_NUM_THREADS": "1", **environ}
    return Host(base, chosen, python=frameworks.python())


def end(host: Host) -> None:
    if host.process.poll() is None:
        host.process.kill()
    host.process.wait()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    result = Models(tmp_path_factory.mktemp("models"))
    yield result
    result.close()


@pytest.fixture
def laid_out(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    started: list[Host] = []

    def begin(files: Mapping[str, str | bytes], **environ: str) -> Host:
        base = tmp_path / str(len(started))
        (base / "model").mkdir(parents=True)
        for name, content in files.items():
            path = base / "model" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        started.append(start(base, **environ))
        return started[-1]

    yield begin
    for host in started:
        end(host)


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_the_example(models: Models) -> None:
    """code/inference.py has model_fn alone, which loads a state dict."""
    host = models.host("example")
    reply = host.invoke(json.dumps(ROWS))
    assert (reply.status, reply.headers["content-type"]) == (200, JSON), reply.text
    assert json.loads(reply.body) == pytest.approx(models.expected, rel=1e-4)
    inside, outside, _ = json.loads(reply.body)
    assert inside > 0.9 > 0.1 > outside


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (json.dumps(ROWS), JSON),
        (json.dumps(ROWS), "application/json; charset=utf-8"),
        (_POINTS, CSV),
        (npy(np.array(ROWS, dtype=np.float32)), NPY),
    ],
)
def test_torchscript_without_code(models: Models, body: bytes | str, content_type: str) -> None:
    """The only .pth file, whatever its name."""
    reply = models.host("script").invoke(body, content_type)
    assert reply.status == 200, reply.text
    assert json.loads(reply.body) == pytest.approx(models.expected, rel=1e-4)


def test_replies(models: Models) -> None:
    host = models.host("script")
    body = json.dumps(ROWS)
    lines = host.invoke(body, Accept=CSV)
    assert lines.headers["content-type"] == CSV
    assert [float(line) for line in lines.text.split("\n")[:-1]] == pytest.approx(models.expected, rel=1e-4)
    array = host.invoke(body, Accept=NPY)
    assert array.headers["content-type"] == NPY
    read = np.load(io.BytesIO(array.body))
    assert read.dtype == np.float64
    assert read.tolist() == pytest.approx(models.expected, rel=1e-4)
    for accept in ("*/*", "application/json, text/csv", "text/html, application/json;q=0.1"):
        assert host.invoke(body, Accept=accept).headers["content-type"] == JSON
    assert host.invoke(body, Accept="application/xml").status == 406


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        ("[1, 2, 3]", JSON, [1.0, 2.0, 3.0]),
        ("16777217", JSON, 16777216.0),  # float32
        ("[[true, 2]]", JSON, [[1.0, 2.0]]),
        ("1,2,3\n", CSV, [1.0, 2.0, 3.0]),
        ("1\n2\n", CSV, [1.0, 2.0]),
        ("1,2\n3,4.5\n", CSV, [[1.0, 2.0], [3.0, 4.5]]),
        ("7", CSV, 7.0),
        (npy(np.array([[2**53]])), NPY, [[2**53]]),
        (npy(np.array([0.1])), NPY, [0.1]),
        (npy(np.array([True])), NPY, [True]),
    ],
)
def test_what_the_model_gets(models: Models, body: bytes | str, content_type: str, expected: Any) -> None:
    """Of several files it is model.pt; in evaluation mode and without gradients, or it would raise."""
    reply = models.host("several").invoke(body, content_type)
    assert reply.status == 200, reply.text
    assert json.loads(reply.body) == expected


def test_an_empty_field_is_not_a_number(models: Models) -> None:
    reply = models.host("several").invoke("1,,3\n4,5,6\n", CSV, Accept=NPY)
    assert np.isnan(np.load(io.BytesIO(reply.body))).tolist() == [[False, True, False], [False] * 3]


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ('{"a": 1}', JSON, 400),
        ('["a"]', JSON, 400),
        ("[[1], [2, 3]]", JSON, 400),
        ("[1", JSON, 400),
        ("x,y\n1,2\n", CSV, 400),
        ("1,2\n3\n", CSV, 400),
        ("", CSV, 400),
        (npy(np.array(["a"])), NPY, 400),
        (b"\x93NUMPY", NPY, 400),
        (b"\0", "application/octet-stream", 415),
        (b"\0", "application/x-npz", 415),
        (b"\0", "text/plain", 415),
    ],
)
def test_a_body_that_is_no_array(models: Models, body: bytes | str, content_type: str, status: int) -> None:
    reply = models.host("several").invoke(body, content_type)
    assert reply.status == status, reply.text


def test_what_a_model_raises_is_500(models: Models) -> None:
    reply = models.host("script").invoke("[[1, 2, 3]]")
    assert reply.status == 500
    assert "mat1 and mat2 shapes cannot be multiplied" in reply.text
    reply = models.host("script").invoke(npy(np.array(ROWS)), NPY)  # float64, which the weights are not
    assert reply.status == 500
    assert "dtype" in reply.text


def test_three_dimensions_are_no_csv(models: Models) -> None:
    assert models.host("several").invoke("[[[1]]]", Accept=CSV).status == 406
    assert models.host("several").invoke("7", Accept=CSV).text == "7.0\n"


def test_the_default_accept_and_batches(models: Models) -> None:
    base = models.root / "batches"
    base.mkdir()
    (base / "model").symlink_to(models.root / "script" / "model")
    environ = {"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": CSV, "MOORAGE_BATCH_SIZE": "8"}
    host = models.host("batches", **environ)
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda row: host.invoke(json.dumps([row])), ROWS * 4))
    assert {reply.headers["content-type"] for reply in replies} == {CSV}
    assert [float(reply.text) for reply in replies] == pytest.approx(models.expected * 4, rel=1e-4)


def test_a_script_with_some_of_the_functions(laid_out: Callable[..., Host]) -> None:
    """A tensor within a dict is written too; a model at the root of the archive may be what the code says."""
    program = """
import torch
def model_fn(model_dir, context):
    return torch.nn.Linear(2, 1, dtype=torch.bfloat16)
def input_fn(body, content_type):
    return torch.tensor([[float(each) for each in body.split()]], dtype=torch.bfloat16)
def predict_fn(data, model, context):
    assert not torch.is_inference_mode_enabled()
    weight = model.weight.detach().fill_(2)
    gpu = context.system_properties["gpu_id"]
    return {"sum": (data @ weight.T)[0], "parts": [data, (1, torch.tensor(2))], "gpu": gpu}
"""
    host = laid_out({"inference.py": program}).wait_ready()
    reply = host.invoke("1.5 2", "text/x-blanks")
    assert reply.status == 200, reply.text
    answer = json.loads(reply.body)
    assert {**answer, "gpu": None} == {"sum": [7.0], "parts": [[[1.5, 2.0]], [1, 2]], "gpu": None}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.pt": b"", "b.pth": b""}, "Exactly one .pth or .pt file is required"),
        ({"weights/model.pt": b"", "model.bin": b""}, "(model.bin, weights)"),
        ({}, "(no file)"),
        ({"._model.pt": b"", "model.pt": b"no model"}, "model.pt cannot be loaded as TorchScript"),
    ],
)
def test_a_model_that_cannot_be_served_fails_the_start(
    laid_out: Callable[..., Host], files: Mapping[str, bytes], expected: str
) -> None:
    assert expected in laid_out(files).wait_failed()


def test_a_whole_module_that_is_pickled_is_no_torchscript(models: Models) -> None:
    host = start(models.root / "eager")
    try:
        last = host.wait_failed()
    finally:
        end(host)
    assert "model.pth cannot be loaded as TorchScript" in last
    assert "torch.jit.script or torch.jit.trace, or add code/inference.py with a model_fn" in last


def test_torchscript_is_served_in_other_images_too(hosts: Starter) -> None:
    base = hosts.base()
    program = (
        "import sys, torch; torch.jit.script(torch.nn.Linear(2, 1)).save(sys.argv[1]);"
        "print(torch.jit.load(sys.argv[1])(torch.tensor([[1.0, 2.0]])).tolist())"
    )
    expected = frameworks.run(program, str(base / "model" / "model.pt"))
    host = hosts.start(python=frameworks.python()).wait_ready()
    ((found,),) = json.loads(host.invoke("[[1, 2]]").text)
    assert found == pytest.approx(expected[0][0], abs=1e-6)


def test_without_torch_code_that_needs_none_gets_arrays(hosts: Starter) -> None:
    source = "def model_fn(model_dir): return 2\ndef predict_fn(data, model): return data * model"
    assert hosts.ready(source, MOORAGE_MODEL_FAMILY="pytorch").invoke("[[1, 2]]").text == "[[2, 4]]"


def test_without_torch_a_model_is_refused_with_the_line_that_installs_it(hosts: Starter) -> None:
    (hosts.base() / "model" / "model.pt").write_bytes(b"x")
    sentence = hosts.start(MOORAGE_MODEL_FAMILY="pytorch").wait_failed()
    assert "needs torch, which is not installed: add torch to code/requirements.txt" in sentence
    assert "pip install 'moorage[torch]'" in sentence
