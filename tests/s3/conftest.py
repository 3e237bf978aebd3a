from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.s3.program import PROGRAM, S3Program


@pytest.fixture
def new_s3(tmp_path: Path) -> Iterator[Callable[..., S3Program]]:
    """Makes embedded S3s of a test's own, which are not started."""
    assert PROGRAM.exists(), f"{PROGRAM} is missing: `make .venv/test` builds it"
    made: list[S3Program] = []

    def make(name: str = "data", **options: Any) -> S3Program:
        made.append(S3Program(tmp_path / name, **options))
        return made[-1]

    yield make
    for each in made:
        each.ensure_stopped()


@pytest.fixture
def s3(new_s3: Callable[..., S3Program]) -> S3Program:
    """A running one."""
    return new_s3().start()
