"""PyTorch models: tensors, TorchScript without code, and the example."""

import io
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import frameworks

from .hosts import Host, Starter

TRAIN = Path(__file__).parents[2] / "examples" / "torch" / "train.py"
MAKE = """
import sys, torch
torch.manual_seed(1)
net = torch.nn.Sequential(torch.nn.Linear(3, 2))
folder = sys.argv[1]
torch.jit.script(net).save(f"{folder}/script.pt")
torch.save(net, f"{folder}/eager.pt")
torch.jit.script(torch.nn.Identity()).save(f"{folder}/identity.pt")
with torch.no_grad():
    print(net(torch.tensor([[1.0, 2.0, 3.0]])).tolist()[0])
"""
IDENTITY = """
import torch
def model_fn(model_dir):
    return torch.nn.Identity()
def output_fn(prediction, accept):
    tensor = prediction
    return f"{tensor.dtype} {list(tensor.shape)} {tensor.requires_grad} {tensor.tolist()}"
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torch")
    made = subprocess.run(
        [frameworks.python(), "-c", MAKE, folder], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    (folder / "expected.json").write_text(made.stdout)
    return folder


def start(
    hosts: Starter, files: dict[str, Path] | None = None, inference: str | None = None, **environ: Any
) -> Host:
    base = hosts.base()
    for name, source in (files or {}).items():
        (base / "model" / name).write_bytes(source.read_bytes())
    return hosts.start(
        inference, python=frameworks.python(), **{"MOORAGE_MODEL_FAMILY": "pytorch", **environ}
    )


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["model.pt", "net.pth", "net.pt"])
@pytest.mark.parametrize("family", ["pytorch", "generic"])
def test_torchscript_is_served_without_code(hosts: Starter, models: Path, name: str, family: str) -> None:
    host = start(hosts, {name: models / "script.pt"}, MOORAGE_MODEL_FAMILY=family).wait_ready()
    expected = json.loads((models / "expected.json").read_text())
    (row,) = json.loads(host.invoke("[[1, 2, 3]]").text)
    assert row == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.pt": "script.pt", "b.pt": "script.pt"}, "Exactly one .pth or .pt file is required"),
        ({}, "Exactly one .pth or .pt file is required"),
        ({"model.pt": "eager.pt"}, "cannot be loaded as TorchScript"),
    ],
)
def test_what_cannot_be_served_is_told(
    hosts: Starter, models: Path, files: dict[str, str], expected: str
) -> None:
    host = start(hosts, {name: models / source for name, source in files.items()})
    assert expected in host.wait_failed()


def test_model_pt_goes_before_others(hosts: Starter, models: Path) -> None:
    host = start(hosts, {"model.pt": models / "identity.pt", "other.pt": models / "script.pt"}).wait_ready()
    assert host.invoke("[[1, 2, 3]]").text == "[[1.0, 2.0, 3.0]]"


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        ("[[1, 2], [3, 4]]", "application/json", "torch.float32 [2, 2] False [[1.0, 2.0], [3.0, 4.0]]"),
        ("[1, 2]", "application/json", "torch.float32 [2] False [1.0, 2.0]"),
        ("1,2\n3,4\n", "text/csv", "torch.float32 [2, 2] False [[1.0, 2.0], [3.0, 4.0]]"),
        ("1,2", "text/csv", "torch.float32 [2] False [1.0, 2.0]"),
        ("1\n2\n", "text/csv", "torch.float32 [2] False [1.0, 2.0]"),
        ("1,,3", "text/csv", "torch.float32 [3] False [1.0, nan, 3.0]"),
        (npy(np.array([[1.5]])), "application/x-npy", "torch.float64 [1, 1] False [[1.5]]"),
        (npy(np.array([[1]])), "application/x-npy", "torch.int64 [1, 1] False [[1]]"),
    ],
)
def test_bodies_become_tensors(torch_host: Host, body: Any, content_type: str, expected: str) -> None:
    assert torch_host.invoke(body, content_type).text == expected


@pytest.fixture(scope="module")
def torch_host(tmp_path_factory: pytest.TempPathFactory) -> Any:
    hosts = Starter(tmp_path_factory.mktemp("host"))
    try:
        yield start(hosts, inference=IDENTITY).wait_ready()
    finally:
        hosts.close()


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ('{"a": 1}', "application/json", 400),
        ('["a"]', "application/json", 400),
        ("[[1], [2, 3]]", "application/json", 400),
        ("", "text/csv", 400),
        ("x", "text/plain", 415),
    ],
)
def test_bodies_that_are_no_tensors(torch_host: Host, body: str, content_type: str, status: int) -> None:
    assert torch_host.invoke(body, content_type).status == status


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("application/json", "[[1.0, 2.0]]"),
        ("text/csv", "1.0,2.0\n"),
        ("text/html, text/csv", "1.0,2.0\n"),
        ("*/*", "[[1.0, 2.0]]"),
    ],
)
def test_tensors_are_encoded(hosts: Starter, models: Path, accept: str, expected: str) -> None:
    host = start(hosts, {"model.pt": models / "identity.pt"}).wait_ready()
    assert host.invoke("[[1, 2]]", Accept=accept).text == expected
    assert host.invoke("[[1, 2]]", Accept="text/html").status == 406


def test_tuples_and_dicts_of_tensors_are_encoded(hosts: Starter) -> None:
    host = start(
        hosts,
        inference="""
        import torch
        class Net(torch.nn.Module):
            def forward(self, x):
                return {"twice": x * 2, "parts": (x, x + 1)}
        def model_fn(model_dir):
            return Net()
        """,
    ).wait_ready()
    assert json.loads(host.invoke("[1, 2]").text) == {"twice": [2.0, 4.0], "parts": [[1.0, 2.0], [2.0, 3.0]]}


def test_predictions_run_in_batches(hosts: Starter, models: Path) -> None:
    host = start(hosts, {"model.pt": models / "script.pt"}, MOORAGE_BATCH_SIZE=8).wait_ready()
    expected = json.loads((models / "expected.json").read_text())
    (row,) = json.loads(host.invoke("[[1, 2, 3]]").text)
    assert row == pytest.approx(expected, abs=1e-6)


def test_the_example(hosts: Starter) -> None:
    base = hosts.base()
    made = subprocess.run(
        [frameworks.python(), TRAIN, base / "model"], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    host = start(hosts).wait_ready()
    ((found,),) = json.loads(host.invoke("[[0.1, 0.2, 0.3, 0.4]]").text)
    assert found == pytest.approx(1.0, abs=0.1)


def test_without_torch_code_that_needs_none_gets_arrays(hosts: Starter) -> None:
    host = hosts.ready(
        "def model_fn(model_dir): return 2\ndef predict_fn(data, model): return data * model",
        MOORAGE_MODEL_FAMILY="pytorch",
    )
    assert host.invoke("[[1, 2]]").text == "[[2, 4]]"


def test_without_torch_a_model_is_refused_with_the_line_that_installs_it(
    hosts: Starter, tmp_path: Path
) -> None:
    (hosts.base() / "model" / "model.pt").write_bytes(b"x")
    sentence = hosts.start(MOORAGE_MODEL_FAMILY="pytorch").wait_failed()
    assert "needs torch, which is not installed: add torch to code/requirements.txt" in sentence
    assert "pip install 'moorage[torch]'" in sentence
