"""Where the environment of the frameworks is missing, tests that need it are skipped, but not in CI."""

from pathlib import Path

import pytest

from tests import frameworks


@pytest.mark.parametrize(
    ("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)], ids=["desk", "ci"]
)
def test_a_missing_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(frameworks, "ROOT", tmp_path)
    with pytest.raises(outcome, match="make build/frameworks"):
        frameworks.python()
