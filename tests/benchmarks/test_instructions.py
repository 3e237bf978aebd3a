"""What an invocation costs the gateway does not grow unnoticed: benchmarks/instructions.py counts instructions."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent.parent.parent / "benchmarks/instructions.py"


def test_an_invocation_costs_no_more_than_is_recorded() -> None:
    if not os.environ.get("CI") and not shutil.which("valgrind"):
        pytest.skip("valgrind is not installed")
    run = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
