"""Models of each framework, deployed by the SageMaker Python SDK as on AWS, predict what their libraries do."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import frameworks
from tests.async_inference.test_sagemaker_sdk import exports, sdk_python
from tests.servers import ROLE, MoorageServer

__all__ = ["sdk_python"]  # a fixture

pytestmark = pytest.mark.timeout(600)  # the first run installs the SDK

HERE = Path(__file__).parent
BUCKET = "sdk-models"


@pytest.fixture(scope="module")
def predicted(
    sdk_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Any, dict[str, Any]]]:
    """For each model: what its library predicts, and what its endpoint does, by the format."""
    folder = tmp_path_factory.mktemp("sdk")
    models = folder / "models"
    models.mkdir()
    made = subprocess.run(
        [frameworks.python(), HERE / "sdk_models.py", models], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    expected = json.loads(made.stdout.splitlines()[-1])
    beside = Path(sys.executable).parent  # the embedded S3 is there
    server = MoorageServer(
        folder / "data",
        python=frameworks.python(),
        environment={
            "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}",
        },
    ).start()
    try:
        server.client("s3").create_bucket(Bucket=BUCKET)
        ran = subprocess.run(
            [sdk_python, HERE / "sdk_models_program.py", ROLE, BUCKET, models],
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **exports(server)},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )
        assert ran.returncode == 0, ran.stderr[-4000:] + ran.stdout[-2000:] + server.log[-2000:]
    finally:
        server.ensure_stopped()
    said = json.loads(ran.stdout.splitlines()[-1])
    return {
        name: (value, {key: found for key, found in said.items() if key.partition(",")[0] == name})
        for name, value in expected.items()
    }


@pytest.mark.parametrize("name", ["sklearn", "torch-script", "torch-eager", "xgboost"])
def test_rows_are_predicted(predicted: dict[str, Any], name: str) -> None:
    expected, found = predicted[name]
    assert len(found) == (2 if name == "xgboost" else 3)
    for kind, value in found.items():
        flat = [float(cell) for row in value for cell in (row if isinstance(row, list) else [row])]
        wanted = [cell for row in expected for cell in (row if isinstance(row, list) else [row])]
        assert flat == pytest.approx(wanted, abs=1e-5), kind


def test_text_is_classified(predicted: dict[str, Any]) -> None:
    expected, found = predicted["huggingface"]
    (label,) = expected
    ((reply,),) = found.values()
    assert reply["label"] == label["label"]
    assert reply["score"] == pytest.approx(label["score"], abs=1e-4)
