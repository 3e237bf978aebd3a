"""Models that bring no code, and what the defaults make of their input and output."""

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .hosts import Starter

ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]


@pytest.fixture
def model_dir(hosts: Starter) -> Path:
    return hosts.base() / "model"


def save_sklearn(path: Path) -> Any:
    import joblib
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(np.array(ROWS * 2), ["setosa", "virginica"] * 2)
    joblib.dump(model, path)
    return model


def save_onnx(path: Path, *, inputs: int = 1, outputs: int = 1) -> None:
    """Each output is the sum of the inputs plus its own number."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    shape = (None, 2)
    names = [f"x{number}" for number in range(inputs)]
    nodes = [helper.make_node("Sum", names, ["sum"])]
    constants = []
    for number in range(outputs):
        constants.append(numpy_helper.from_array(np.array([number], dtype=np.float32), f"c{number}"))
        nodes.append(helper.make_node("Add", ["sum", f"c{number}"], [f"y{number}"]))
    graph = helper.make_graph(
        nodes,
        "sums",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names],
        [helper.make_tensor_value_info(f"y{number}", TensorProto.FLOAT, shape) for number in range(outputs)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    save(model, str(path))


def save_booster(path: Path) -> Any:
    import xgboost

    rows = np.random.default_rng(0).normal(size=(60, 4))
    booster = xgboost.train(
        {"nthread": 1, "max_depth": 2}, xgboost.DMatrix(rows, rows[:, 0], feature_names=list("abcd")), 3
    )
    booster.save_model(path)
    return booster


def test_sklearn_speaks_every_format(hosts: Starter, model_dir: Path) -> None:
    save_sklearn(model_dir / "model.joblib")
    (model_dir / "config.json").write_text("{}")
    started = time.monotonic()
    host = hosts.ready()
    assert time.monotonic() - started < 15, "about 2 s on a quiet machine"
    expected = ["setosa", "virginica"]
    assert json.loads(host.invoke(json.dumps(ROWS)).body) == expected
    csv = "\n".join(",".join(map(str, row)) for row in ROWS)
    assert host.invoke(csv, "text/csv", Accept="text/csv").text == "setosa\nvirginica\n"
    assert host.invoke(csv.splitlines()[1], "text/csv").text == '["virginica"]'
    assert host.invoke(json.dumps(ROWS[0])).text == '["setosa"]', "one row without its brackets"
    stream = io.BytesIO()
    np.save(stream, np.array(ROWS))
    reply = host.invoke(stream.getvalue(), "application/x-npy", Accept="application/x-npy")
    assert reply.headers["content-type"] == "application/x-npy"
    assert np.load(io.BytesIO(reply.body)).tolist() == expected
    lines = "\n".join(map(json.dumps, ROWS))
    assert (
        host.invoke(lines, "application/jsonlines", Accept="application/jsonlines").text
        == '"setosa"\n"virginica"\n'
    )
    assert host.invoke('{"rows": 1}').status == 400
    wrong = host.invoke("[[1, 2]]")
    assert wrong.status == 500
    assert "2 features" in wrong.text


def test_a_single_pickle_of_any_name(hosts: Starter, model_dir: Path) -> None:
    save_sklearn(model_dir / "flowers.pkl")
    assert hosts.ready().invoke(json.dumps(ROWS)).status == 200


def test_onnx_with_one_input(hosts: Starter, model_dir: Path) -> None:
    save_onnx(model_dir / "net.onnx")
    host = hosts.ready()
    assert host.invoke("[[1, 2], [3, 4]]").text == "[[1.0, 2.0], [3.0, 4.0]]"
    assert host.invoke("1,2", "text/csv", Accept="text/csv").text == "1.0,2.0\n"
    assert host.invoke('{"x0": [[1, 2]]}').text == "[[1.0, 2.0]]"
    for refused, why in [
        ("[1, 2]", "refuses"),
        ('[["a", "b"]]', "not a tensor(float)"),
        ('{"z": 1}', "inputs are x0"),
    ]:
        reply = host.invoke(refused)
        assert reply.status == 400, reply.text
        assert why in reply.text


def test_onnx_with_several_inputs_and_outputs(hosts: Starter, model_dir: Path) -> None:
    save_onnx(model_dir / "model.onnx", inputs=2, outputs=2)
    host = hosts.ready()
    reply = host.invoke('{"x0": [[1, 2]], "x1": [[10, 20]]}')
    assert json.loads(reply.body) == {"y0": [[11, 22]], "y1": [[12, 23]]}
    assert host.invoke("[[1, 2]]").status == 400
    assert host.invoke('{"x0": [[1, 2]]}').status == 400


@pytest.mark.parametrize("name", ["model.ubj", "booster.json", "xgboost-model"])
def test_xgboost(hosts: Starter, model_dir: Path, tmp_path: Path, name: str) -> None:
    import xgboost

    saved = tmp_path / ("as.ubj" if name == "xgboost-model" else name)
    booster = save_booster(saved)
    saved.rename(model_dir / name)
    host = hosts.ready()
    expected = booster.predict(xgboost.DMatrix(np.array(ROWS), feature_names=list("abcd")))
    assert json.loads(host.invoke(json.dumps(ROWS)).body) == pytest.approx(expected.tolist())
    assert len(json.loads(host.invoke("1,2,,4", "text/csv").body)) == 1, "an empty cell is a missing value"


def test_code_with_some_functions_gets_the_artifact(hosts: Starter, model_dir: Path) -> None:
    save_sklearn(model_dir / "model.joblib")
    host = hosts.ready("""
        def output_fn(prediction, accept):
            return " and ".join(prediction), "text/plain"
        """)
    assert host.invoke(json.dumps(ROWS)).text == "setosa and virginica"
