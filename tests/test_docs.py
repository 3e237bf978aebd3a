"""The documentation says what is: settings, commands, tests and links that it names exist."""

import dataclasses
import re
from pathlib import Path

import pytest
from typer.main import get_command

from moorage.auth.condition_keys import FILLED
from moorage.cli.main import app
from moorage.config import Settings

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def test_every_setting_is_documented_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", (ROOT / "docs/settings.md").read_text(), re.M))
    fields = dataclasses.fields(Settings)
    assert set(rows) == {field.name for field in fields}
    for field in fields:
        if field.default is not dataclasses.MISSING:
            assert rows[field.name] == (str(field.default) or "empty"), field.name


def test_every_command_is_documented() -> None:
    pages = "\n".join(page.read_text() for page in PAGES)
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert [name for name in commands if f"moorage {name}" not in pages] == []


def test_every_condition_key_that_is_filled_is_documented() -> None:
    section = (ROOT / "docs/security.md").read_text().partition("### Conditions\n")[2].partition("\n### ")[0]
    table = section.partition("| requests |")[2].partition("\n\n")[0]
    documented = set(re.findall(r"`([a-z0-9]+:[\w/…-]+)`", table))
    assert documented == {key.replace("*", "…") for keys in FILLED.values() for key in keys}


def test_every_deviation_names_a_test_that_exists() -> None:
    text = (ROOT / "docs/deviations.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| what")]
    assert len(rows) > 10
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, f"no test: {row}"
        for path, name in named:
            assert f"def {name}(" in (ROOT / path).read_text(), f"{path}::{name}"


def test_the_tests_that_the_threat_model_names_exist() -> None:
    named = re.findall(r"`(tests/[\w/.]+)`", (ROOT / "SECURITY.md").read_text())
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
