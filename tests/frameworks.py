"""The environment with torch and transformers, which tests run in a process of its own."""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def python() -> Path:
    """Its interpreter. Skips the test where there is none, but fails under CI."""
    path = ROOT / "build" / "frameworks" / "bin" / "python"
    if not path.exists():
        reason = "build/frameworks is missing: make build/frameworks"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def run(program: str, *arguments: str) -> Any:
    """What the program prints last, as JSON. It is in a file, since TorchScript reads the sources of modules."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "program.py")
        path.write_text(program)
        done = subprocess.run(
            [str(python()), str(path), *arguments],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rstrip("\n").rpartition("\n")[2])
