"""The environment with the frameworks that models need: `make build/frameworks`."""

import os
from pathlib import Path

import pytest

PYTHON = Path(__file__).parents[1] / "build" / "frameworks" / "bin" / "python"


def python() -> Path:
    """Its interpreter. Without it the test is skipped, and fails where all is tested."""
    if not PYTHON.exists():
        reason = "the frameworks are not installed: make build/frameworks"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    return PYTHON
