"""Reads and writes files."""

import json
from pathlib import Path
from typing import Any


def read_file(path: str, mode: str = "r") -> Any:
    with Path(path).open(mode) as file:
        return file.read()


def write_file(path: str, data: Any, mode: str = "w") -> None:
    with Path(path).open(mode) as file:
        file.write(data)


def read_json(path: str) -> Any:
    return json.loads(Path(path).read_text())


def __getattr__(name: str) -> Any:
    from moorage.modelhost import training_only

    return training_only.attribute(__name__, name)
