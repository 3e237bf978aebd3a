from collections.abc import Iterator
from pathlib import Path

import pytest

from .hosts import Starter


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Starter]:
    starter = Starter(tmp_path)
    yield starter
    starter.close()
