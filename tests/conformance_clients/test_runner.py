"""What the runner makes of a client's directory, its output and its end."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from conformance import client as clients
from conformance import table
from conformance.behaviours import Behaviour, Cell, Outcome, load
from conformance.client import Client, ClientError, MissingTool
from conformance.run import BEHAVIOURS

ROWS = tuple(
    Behaviour(id=each, operation="InvokeEndpoint", text=each) for each in ("a.one", "a.two", "b.one")
)


@pytest.fixture(autouse=True)
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(clients, "_BUILD", tmp_path / "build")
    yield tmp_path / "build"


def client(tmp_path: Path, program: str, *lines: str, install: Sequence[Sequence[str]] = ()) -> Client:
    """A client in Python: `lines` are more of its client.toml."""
    directory = tmp_path / "snake"
    directory.mkdir(exist_ok=True)
    (directory / "main.py").write_text(program)
    (directory / "client.toml").write_text(
        "\n".join(
            ('name = "Snake"', 'run = ["{python}", "main.py"]', f"install = {json.dumps(install)}", *lines)
        )
    )
    return Client.load(directory)


def says(behaviour: str, outcome: str) -> str:
    return f'print(\'{{"behaviour": "{behaviour}", "outcome": "{outcome}", "detail": "why"}}\')\n'


def test_what_a_client_does_not_report_is_not_covered(tmp_path: Path) -> None:
    snake = client(
        tmp_path, says("a.one", "passed") + says("a.two", "failed"), "[not_covered]", '"b.*" = "no legs"'
    )
    assert snake.call({}, ROWS) == {
        "a.one": Cell(outcome=Outcome.PASSED, detail="why"),
        "a.two": Cell(outcome=Outcome.FAILED, detail="why"),
        "b.one": Cell(outcome=Outcome.NOT_COVERED, detail="no legs"),
    }


def test_a_client_that_breaks_off_has_failed_the_rest(tmp_path: Path) -> None:
    snake = client(
        tmp_path, says("a.one", "passed") + "raise SystemExit(3)", "[not_covered]", '"b.*" = "no legs"'
    )
    column = snake.call({}, ROWS)
    assert column["a.one"].outcome is Outcome.PASSED
    assert column["a.two"] == Cell(outcome=Outcome.FAILED, detail="the program ended with status 3")
    assert column["b.one"].outcome is Outcome.NOT_COVERED


def test_a_client_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "_TIMEOUT_SECONDS", 0.5)
    column = client(tmp_path, "import threading; threading.Event().wait()").call({}, ROWS)
    assert {cell.outcome for cell in column.values()} == {Outcome.FAILED}


@pytest.mark.parametrize(
    ("program", "complaint"),
    [("print('hello')", "a line that is no outcome"), (says("c.one", "passed"), "not in behaviours.toml")],
)
def test_output_that_cannot_be_understood_is_refused(tmp_path: Path, program: str, complaint: str) -> None:
    with pytest.raises(ClientError, match=complaint):
        client(tmp_path, program).call({}, ROWS)


def test_a_client_is_installed_again_when_its_files_change(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    install = [[sys.executable, "-c", f"open({str(journal)!r}, 'a').write('x')"]]
    for program in ("1", "1", "2"):
        client(tmp_path, program, install=install).ensure_installed()
    assert journal.read_text() == "xx"


def test_a_client_that_cannot_be_installed_says_why_and_is_tried_again(tmp_path: Path) -> None:
    snake = client(
        tmp_path, "", install=[[sys.executable, "-c", "raise SystemExit('the registry is closed')"]]
    )
    for _ in range(2):
        with pytest.raises(ClientError, match="the registry is closed"):
            snake.ensure_installed()


@pytest.mark.parametrize(
    ("tool", "complaint"),
    [
        ('command = ["no-such-program"]', "no-such-program is not installed"),
        (f'command = ["{sys.executable}", "--version"]\nat_least = "99.1"', r"must be at least 99\.1"),
    ],
)
def test_a_tool_that_is_missing_or_too_old_is_named(tmp_path: Path, tool: str, complaint: str) -> None:
    with pytest.raises(MissingTool, match=complaint):
        client(tmp_path, "", "[[tools]]", tool).check_tools()


def test_the_table_has_a_row_for_every_behaviour_and_reasons_below(tmp_path: Path) -> None:
    snake = client(
        tmp_path, says("a.one", "passed") + says("a.two", "failed"), "[not_covered]", '"b.*" = "no legs"'
    )
    lines = table.markdown(ROWS, {"Snake": snake.call({}, ROWS)}).splitlines()
    assert lines[0] == "| behaviour | Snake  |"
    assert lines[2:5] == ["| a.one     | passed |", "| a.two     | FAILED |", "| b.one     | -      |"]
    assert "FAILED: Snake: why (a.two)" in lines
    assert "not covered: Snake: no legs (b.one)" in lines


def test_the_ids_of_the_behaviours_differ() -> None:
    ids = [behaviour.id for behaviour in load(BEHAVIOURS)]
    assert len(ids) == len(set(ids))
