"""Where logs are, and how they are read while they grow and are rotated."""

import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.controller.log_files import (
    LogDirectories,
    LogName,
    LogPiece,
    Place,
    directory_of,
    incarnation,
    instance_of,
    is_incarnation,
    logs_in,
    read_log,
)
from moorage.resources import Endpoint, EndpointStatus
from moorage.storage.memory import MemoryResourceStore

ACCOUNT = "000000000000"
CREATED = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
LOG = LogName("v", "i-1")


def endpoint(name: str = "e", created: datetime = CREATED, **changes: object) -> Endpoint:
    values: dict[str, object] = {
        "account_id": ACCOUNT,
        "name": name,
        "arn": f"endpoint/{name}",
        "status": EndpointStatus.IN_SERVICE,
        "endpoint_config_name": "c",
        "deployment_id": "d",
        "target_config_name": None,
        "target_deployment_id": None,
        "creation_time": created,
        "last_modified_time": created,
        "failure_reason": None,
        "deployed": None,
        "definition": {},
    }
    return Endpoint(**{**values, **changes})  # type: ignore[arg-type]


def texts(piece: LogPiece) -> list[str]:
    return [line.text.decode() for line in piece.lines]


class Writer:
    """A log that is rotated by renaming; all earlier files are kept."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "v" / "i-1.log"
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)

    def rotate(self) -> None:
        for number in range(len(list(self.path.parent.glob("i-1.log*"))), 1, -1):
            self.path.with_name(f"i-1.log.{number - 1}").rename(self.path.with_name(f"i-1.log.{number}"))
        self.path.rename(self.path.with_name("i-1.log.1"))


# --- where they are ------------------------------------------------------------------------------------


async def test_an_endpoint_of_the_same_name_has_a_directory_of_its_own(tmp_path: Path) -> None:
    store = MemoryResourceStore()
    directories = LogDirectories(tmp_path, store)
    assert await directories.find(ACCOUNT, "e") is None
    first, second = endpoint(), endpoint(created=CREATED + timedelta(microseconds=1))
    await store.create(first, {})
    Writer(directory_of(tmp_path, first)).write("of the first\n")
    assert await directories.find(ACCOUNT, "e") == directory_of(tmp_path, first)
    await store.delete(first)
    assert await directories.find(ACCOUNT, "e") == directory_of(tmp_path, first), "the last one of that name"
    await store.create(second, {})
    found = await directories.find(ACCOUNT, "e")
    assert found == directory_of(tmp_path, second) != directory_of(tmp_path, first)
    assert logs_in(found) == {}


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "-a", "a-", "a" * 64, "é"])
async def test_a_name_that_no_endpoint_can_have_has_no_logs(tmp_path: Path, name: str) -> None:
    (tmp_path / ACCOUNT / incarnation(endpoint())).mkdir(parents=True)
    assert await LogDirectories(tmp_path, MemoryResourceStore()).find(ACCOUNT, name) is None


def test_names() -> None:
    assert incarnation(endpoint()) == "20260102T030405.000678Z"
    assert is_incarnation("20260102T030405.000678Z")
    assert not is_incarnation("AllTraffic")
    names = {"i-1.log": "i-1", "i-1.log.1": "i-1", "i-1.log.12": "i-1"}
    names |= dict.fromkeys(("i-1", "i-1.log.", "i-1.log.0", "i-1.log.x", ".log", "i-1.log.1.gz"))
    assert {name: instance_of(name) for name in names} == names


# --- reading -------------------------------------------------------------------------------------------


def test_the_last_lines_are_read_over_a_rotation(tmp_path: Path) -> None:
    log = Writer(tmp_path)
    log.write("one\ntwo\nthr")
    log.rotate()
    log.write("ee\nfour\nfi")
    piece = read_log(tmp_path, LOG)
    assert texts(piece) == ["one", "two", "three", "four"]
    assert [line.number for line in piece.lines] == sorted(line.number for line in piece.lines)
    assert texts(read_log(tmp_path, LOG, max_bytes=12)) == ["four"], (
        "what is cut off at the beginning is no line"
    )
    log.write("ve\n")
    assert texts(read_log(tmp_path, LOG, after=piece.end)) == ["five"]


def test_of_a_long_log_little_is_read(tmp_path: Path) -> None:
    log = Writer(tmp_path)
    log.write("x")
    with log.path.open("r+b") as file:
        file.truncate(100 * 1024**3)
        file.seek(0, os.SEEK_END)
        file.write(b"\nend\n")
    assert texts(read_log(tmp_path, LOG)) == ["end"]


def test_a_line_that_is_longer_than_a_piece_is_cut(tmp_path: Path) -> None:
    log = Writer(tmp_path)
    log.write("a" * 25 + "\nb\n")
    first = read_log(tmp_path, LOG, after=Place(log.path.stat().st_ino, 0), max_bytes=10)
    second = read_log(tmp_path, LOG, after=first.end, max_bytes=10)
    third = read_log(tmp_path, LOG, after=second.end, max_bytes=10)
    assert [texts(each) for each in (first, second, third)] == [["a" * 10], ["a" * 10], ["a" * 5, "b"]]


def test_a_log_that_was_cut_is_read_from_its_start(tmp_path: Path) -> None:
    log = Writer(tmp_path)
    log.write("one\ntwo\n")
    end = read_log(tmp_path, LOG).end
    os.truncate(log.path, 0)
    log.write("new\n")
    assert texts(read_log(tmp_path, LOG, after=end)) == ["new"]


def test_a_log_that_is_gone_has_no_lines(tmp_path: Path) -> None:
    assert read_log(tmp_path / "nowhere", LOG).lines == ()
    place = Place(1, 2)
    assert read_log(tmp_path, LOG, after=place).end == place


@pytest.mark.parametrize("where", ["log", "older", "variant", "directory"])
def test_nothing_is_read_through_a_link(tmp_path: Path, where: str) -> None:
    secret = Writer(tmp_path / "elsewhere")
    secret.write("secret\n")
    directory = tmp_path / "logs"
    if where == "directory":
        directory.symlink_to(tmp_path / "elsewhere")
    else:
        directory.mkdir()
    if where == "variant":
        (directory / "v").symlink_to(secret.path.parent)
    elif where != "directory":
        Writer(directory)
        name = "i-1.log" if where == "log" else "i-1.log.1"
        (directory / "v" / name).symlink_to(secret.path)
    assert logs_in(directory) == {}
    assert texts(read_log(directory, LOG)) == []


def test_a_pipe_in_the_place_of_a_log_holds_up_nobody(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    os.mkfifo(tmp_path / "v" / "i-1.log")
    assert logs_in(tmp_path) == {}
    assert texts(read_log(tmp_path, LOG)) == []


def test_logs_are_told_apart_and_their_changes_seen(tmp_path: Path) -> None:
    log = Writer(tmp_path)
    log.write("a")
    (tmp_path / "v" / "notes.txt").touch()
    before = logs_in(tmp_path)
    assert list(before) == [LOG]
    log.write("b")
    grown = logs_in(tmp_path)
    log.rotate()
    log.write("ab")
    assert len({before[LOG], grown[LOG], logs_in(tmp_path)[LOG]}) == 3


STEPS = st.lists(st.one_of(st.text("ab\n", max_size=12), st.just(None)), max_size=30)


@given(STEPS, st.integers(13, 40))
def test_who_follows_a_log_sees_each_line_once(steps: list[str | None], max_bytes: int) -> None:
    """None is a rotation."""
    with tempfile.TemporaryDirectory() as folder:
        log = Writer(Path(folder))
        seen: list[str] = []
        written = ""
        place = Place(0, 0)
        for step in [*steps, "\n"]:
            if step is None:
                if log.path.exists():
                    log.rotate()
            else:
                log.write(step)
                written += step
            while (piece := read_log(Path(folder), LOG, after=place, max_bytes=max_bytes)).lines:
                seen += texts(piece)
                place = piece.end
            place = piece.end
        lines = written.split("\n")[:-1]
        if all(len(line) < max_bytes for line in lines):
            assert seen == lines
        else:
            assert "".join(seen) == "".join(lines)
