"""The models that batches are measured with: each is faster for 32 rows at once than for 32 times one row.

Usage: python models.py MODEL FILE        trains and saves one
       python models.py --alone MODEL FILE SECONDS    what it does a second, in batches of 32, with nothing around it
"""

import itertools
import sys
import time
from pathlib import Path
from typing import Any

ROWS = 32
FEATURES = 28


def train(model: str, path: Path) -> None:
    import numpy as np

    random = np.random.default_rng(7)
    x, y = random.random((2000, FEATURES)), random.random(2000)
    if model == "forest":
        import joblib
        from sklearn.ensemble import RandomForestRegressor

        joblib.dump(RandomForestRegressor(n_estimators=80, max_depth=8, random_state=7).fit(x, y), path)
    elif model == "onnx":
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        sizes = (FEATURES, 512, 512, 1)
        nodes, weights, name = [], [], "x"
        for number, (rows, columns) in enumerate(itertools.pairwise(sizes)):
            weight = (random.random((rows, columns)) - 0.5).astype(np.float32)
            weights.append(numpy_helper.from_array(weight, f"w{number}"))
            nodes.append(helper.make_node("MatMul", [name, f"w{number}"], [f"m{number}"]))
            nodes.append(helper.make_node("Relu", [f"m{number}"], [f"r{number}"]))
            name = f"r{number}"
        graph = helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1])],
            weights,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
        onnx.save(made, str(path))
    else:
        import torch

        torch.manual_seed(7)
        net = torch.nn.Sequential(
            torch.nn.Linear(FEATURES, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 1024), torch.nn.ReLU(),
            torch.nn.Linear(1024, 1),
        )  # fmt: skip
        torch.jit.script(net).save(str(path))


def predictor(model: str, path: Path) -> Any:
    """A function from an array of rows to an array of predictions, as LitServe's API calls it."""
    import numpy as np

    if model == "forest":
        import joblib

        return joblib.load(path).predict
    if model == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda rows: session.run(None, {name: np.asarray(rows, dtype=np.float32)})[0]
    import torch

    net = torch.jit.load(str(path)).eval()

    def predict(rows: Any) -> Any:
        with torch.no_grad():
            return net(torch.as_tensor(np.asarray(rows, dtype=np.float32))).numpy()

    return predict


def alone(model: str, path: Path, seconds: float) -> float:
    import numpy as np

    predict = predictor(model, path)
    rows = np.random.default_rng(8).random((ROWS, FEATURES))
    predict(rows)
    end, done = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        predict(rows)
        done += ROWS
    return done / seconds


if __name__ == "__main__":
    if sys.argv[1] == "--alone":
        print(alone(sys.argv[2], Path(sys.argv[3]), float(sys.argv[4])))
    else:
        train(sys.argv[1], Path(sys.argv[2]))
