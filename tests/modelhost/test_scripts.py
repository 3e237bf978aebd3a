"""Scripts of the shapes that are written for AWS's images, unchanged, each in its image."""

import json
import pickle
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import xgboost
from sklearn.linear_model import LinearRegression

from tests import frameworks

from .hosts import Starter

SCRIPTS = Path(__file__).with_name("scripts")
SKLEARN, XGBOOST, PYTORCH, HUGGINGFACE = "scikit-learn", "xgboost", "pytorch", "huggingface"


@dataclass(frozen=True)
class Case:
    """One request to a script, and the reply."""

    script: str
    family: str
    body: str
    reply: str
    content_type: str = "application/json"
    accept: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """What is beside the script: the name of a fixture's file."""


CASES = [
    Case("sklearn_training_part", SKLEARN, "[[1, 2], [3, 4]]", "[5.0, 11.0]", needs=("joblib",)),
    Case("sklearn_training_part", SKLEARN, "1,2\n3,4", "5.0\n11.0\n", "text/csv", "text/csv", needs=("joblib",)),
    Case("sklearn_encoders", SKLEARN, "1,2", '{"instances": [{"features": [5.0]}]}', "text/csv", needs=("joblib",)),
    Case("sklearn_encoders", SKLEARN, "1,2", "5.0\n", "text/csv", "text/csv", needs=("joblib",)),
    Case("sklearn_stringio", SKLEARN, "1,2\n3,4", "5.0|11.0", "text/csv; charset=utf-8", needs=("pickle",)),
    Case("sklearn_pandas", SKLEARN, "1,2", '{"prediction": [5.0]}', "text/csv", needs=("joblib", "pandas")),
    Case("sklearn_proba", SKLEARN, "[[1, 2]]", '{"sum": 5.0, "dtype": "float32"}', needs=("joblib",)),
    Case("sklearn_environment", SKLEARN, "[0, 1]", '["a cat", "a dog"]', needs=("labels",)),
    Case("xgboost_encoder", XGBOOST, "0 0:1 1:2", "MARGIN", "text/libsvm", "text/csv", needs=("booster",)),
    Case("xgboost_encoder", XGBOOST, "1,2\n", "MARGIN", "text/csv", "text/csv", needs=("booster",)),
    Case("xgboost_training_part", XGBOOST, "1,2", "PREDICTION", "text/csv", needs=("booster",)),
    Case(
        "transform_only", "generic", '{"text": "ab"}\n{"text": ""}', '{"length": 2}\n{"length": 0}',
        "application/jsonlines",
    ),
    Case(
        "context_user", PYTORCH, "[1]", '{"got": [1], "id": "t=1"}',
        headers={"X_Amzn_SageMaker_Custom_Attributes": "t=1"},
    ),
    Case("own_errors", "generic", '{"a": 1}', "a list is needed", status=422, needs=("no torch",)),
    Case("own_errors", "generic", "[]", "nothing there", status=404),
    Case("own_errors", "generic", "[1]", "[1]"),
    Case("handler_subclass", "generic", "[1, 2, 3]", "[3, 2, 1]"),
    Case("handler_subclass", "generic", "1,2", "2\n1\n", "text/csv", "text/csv"),
    Case("async_client", "generic", '["x"]', '["before", "warm", "x"]'),
    Case("streamer", "generic", "a b", "A B ", "text/csv"),
    Case("huggingface_embedding", HUGGINGFACE, '{"inputs": ["boats", "x"]}', '{"vectors": [[1.0, 2.0], [0.0, 0.0]]}'),
    Case("huggingface_decoder", HUGGINGFACE, '{"inputs": ["a"]}', '[{"label":"a","score":1.0}]'),
    Case("huggingface_decoder", HUGGINGFACE, "{}", "inputs is missing : 400", status=400),
    Case("pytorch_state", PYTORCH, '{"inputs": [[1, 2]]}', "[[5.0]]", needs=("weights",)),
    Case("pytorch_defaults", PYTORCH, "[[1, 2]]", "[[5.0]]", needs=("weights",)),
    Case("pytorch_softmax", PYTORCH, "[[0, 0]]", "[[0.5, 0.5]]", needs=("torch",)),
    Case("flask_like", SKLEARN, "a", "A", "text/csv"),
    Case("flask_like", SKLEARN, "teapot", "short and stout", "text/csv", status=418),
    Case("package_user", "generic", '["a", "b"]', '["A!A!", "B!B!"]', needs=("package",)),
]  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """What scripts find beside them, by the needs of the cases."""
    folder = tmp_path_factory.mktemp("files")
    model = LinearRegression()
    model.coef_, model.intercept_, model.n_features_in_ = np.array([1.0, 2.0]), 0.0, 2
    joblib.dump(model, folder / "model.joblib")
    booster().save_model(folder / "model.json")
    return {
        "joblib": {"model.joblib": (folder / "model.joblib").read_bytes()},
        "pickle": {"model.pkl": pickle.dumps(model)},
        "labels": {"labels.csv": b"0,cat\n1,dog\n"},
        "booster": {"model.json": (folder / "model.json").read_bytes()},
        "package": {
            "code/helpers/__init__.py": b"",
            "code/helpers/text.py": b"def shout(text):\n    return text.upper() + '!'\n",
            "code/lib/vendored.py": b"TIMES = 2\n",
        },
    }


def booster() -> Any:
    rows = np.random.default_rng(1).random((50, 2)) * 4
    return xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(rows, rows[:, 0] > 2), 3)


def expected(case: Case) -> str:
    matrix = xgboost.DMatrix(np.array([[1.0, 2.0]]))
    if case.reply == "MARGIN":
        return f"{booster().predict(matrix, output_margin=True)[0]:.3f}"
    if case.reply == "PREDICTION":
        return json.dumps(booster().predict(matrix).tolist())
    return case.reply


def test_there_are_twenty_scripts_and_each_is_tried() -> None:
    scripts = {path.stem for path in SCRIPTS.glob("*.py")}
    assert len(scripts) >= 20
    assert scripts == {case.script for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.script}-{case.content_type}-{case.status}")
def test_a_script_runs_unchanged(hosts: Starter, files: dict[str, dict[str, bytes]], case: Case) -> None:
    options: dict[str, Any] = {}
    if "pandas" in case.needs or "torch" in case.needs or "weights" in case.needs:
        options["python"] = frameworks.python()
    base = hosts.base()
    beside = {"code/inference.py": (SCRIPTS / f"{case.script}.py").read_bytes()}
    for need in case.needs:
        beside |= files.get(need, {})
    for name, content in beside.items():
        path = base / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if "weights" in case.needs:
        save = "import sys, torch; torch.save({'linear.weight': torch.tensor([[1.0, 2.0]])}, sys.argv[1])"
        subprocess.run([options["python"], "-c", save, base / "model" / "model.pth"], check=True)
    host = hosts.start(
        **options,
        MOORAGE_MODEL_FAMILY=case.family,
        SAGEMAKER_PROGRAM="inference.py",
        SAGEMAKER_SUBMIT_DIRECTORY=base / "model" / "code",
        PREFIX="a ",
    ).wait_ready()
    headers = {**case.headers, **({"Accept": case.accept} if case.accept else {})}
    reply = host.invoke(case.body, case.content_type, **headers)
    assert reply.status == case.status, reply.text + host.log
    if case.status == 200:
        assert reply.text == expected(case)
    else:
        assert expected(case) in reply.text
