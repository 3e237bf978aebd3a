"""The file: its lines, several writers, rotation, a full disk, and the bound on refusals."""

import json
import logging
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from moorage.audit import LONGEST_LINE, AuditLog, BoundedAuditLog, Event

NOON = datetime(2026, 1, 2, 12, 0, 0, 7000, UTC)


def event(name: str = "DeleteModel", **fields: Any) -> Event:
    options: dict[str, Any] = {"outcome": "allowed", "request_id": "r-1", **fields}
    return Event(event_source="sagemaker.amazonaws.com", event_name=name, **options)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


def test_a_line_has_the_fields_that_are_known(path: Path) -> None:
    log = AuditLog(path, clock=lambda: NOON)
    log.write(event())
    log.write(
        event(
            outcome="refused",
            aws_region="us-east-1",
            source_ip_address="10.0.0.1",
            user_agent="boto3",
            account_id="000000000000",
            principal_arn="arn:p",
            access_key_id="AKIA",
            resources=["arn:r"],
            error_code="AccessDeniedException",
            error_message="no\nThe Canonical String",
        )
    )
    log.write(event(resources=["a", "b"]))
    log.close()
    plain = {
        "eventTime": "2026-01-02T12:00:00.007Z",
        "eventSource": "sagemaker.amazonaws.com",
        "eventName": "DeleteModel",
        "requestId": "r-1",
        "outcome": "allowed",
    }
    assert lines_of(path) == [
        plain,
        {
            **plain,
            "awsRegion": "us-east-1",
            "sourceIPAddress": "10.0.0.1",
            "userAgent": "boto3",
            "accountId": "000000000000",
            "principalArn": "arn:p",
            "accessKeyId": "AKIA",
            "resource": "arn:r",
            "outcome": "refused",
            "errorCode": "AccessDeniedException",
            "errorMessage": "no",
        },
        {**plain, "resource": ["a", "b"]},
    ]


def test_nobody_else_may_read_it_and_what_is_there_stays(path: Path) -> None:
    log = AuditLog(path)
    log.open()
    assert path.stat().st_mode & 0o777 == 0o600
    log.close()
    path.write_text("{}\n")
    log.write(event())
    log.close()
    assert len(lines_of(path)) == 2


@pytest.mark.parametrize(
    "text", ["x" * 10_000, "\x00" * 10_000, "😀" * 10_000, "\udcff" * 10_000, '"\\' * 5_000]
)
def test_every_line_is_short(path: Path, text: str) -> None:
    log = AuditLog(path)
    names = ("user_agent", "account_id", "principal_arn", "access_key_id", "error_code", "error_message")
    log.write(event(text, resources=[text] * 100, **dict.fromkeys(names, text)))
    log.close()
    (line,) = path.read_bytes().splitlines(keepends=True)
    assert len(line) < LONGEST_LINE
    assert line.isascii()
    document = json.loads(line)
    assert document["eventName"].endswith("…")
    assert document["requestId"] == "r-1"
    assert document["resource"][-1] == "and 90 more"


def test_a_name_that_fits_is_whole(path: Path) -> None:
    log = AuditLog(path)
    log.write(event(error_message="m" * 1024, user_agent="u" * 400))
    log.close()
    assert lines_of(path)[0]["errorMessage"] == "m" * 1024


def test_lines_of_several_processes_do_not_mix(path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from moorage.audit import AuditLog, Event\n"
        "log = AuditLog(Path(sys.argv[1])); sys.stdin.readline()\n"
        "for n in range(500): log.write(Event(event_source='s', event_name=sys.argv[2], outcome='allowed',"
        " request_id=str(n), user_agent='u' * (n * 4)))\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(path), name], stdin=subprocess.PIPE)
        for name in ("a", "b", "c", "d")
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
        writer.stdin.close()
    assert [writer.wait(60) for writer in writers] == [0] * 4
    lines = lines_of(path)
    for name in ("a", "b", "c", "d"):
        assert [line["requestId"] for line in lines if line["eventName"] == name] == [*map(str, range(500))]


def test_a_file_that_was_moved_away_gets_no_more_lines(path: Path) -> None:
    log = AuditLog(path)
    log.write(event("first"))
    moved = path.rename(path.with_name("audit.log.1"))
    log.write(event("second"))
    path.unlink()
    log.write(event("third"))
    path.unlink()
    path.touch(mode=0o640)  # as logrotate's `create` does
    log.write(event("fourth"))
    log.close()
    assert [line["eventName"] for line in lines_of(moved)] == ["first"]
    assert [line["eventName"] for line in lines_of(path)] == ["fourth"]
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_full_disk_is_told_once_and_what_is_missing_is_counted(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.symlink_to("/dev/full")
    log = AuditLog(path)
    for _ in range(3):
        log.write(event())
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert str(path) in record.getMessage()
    assert "No space left on device" in record.getMessage()
    path.unlink()
    log.write(event("after"))
    log.write(event("later"))
    log.close()
    missing, *others = lines_of(path)
    assert (missing["eventName"], missing["count"]) == ("LinesNotWritten", 3)
    assert [line["eventName"] for line in others] == ["after", "later"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]


def test_what_is_missing_at_the_end_is_told(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = AuditLog(path / "no" / "directory")
    log.write(event())
    log.write(event())
    log.close()
    assert [record.getMessage().partition(str(path))[0] for record in caplog.records] == [
        "the audit log ",
        "2 lines are missing from the audit log ",
    ]


def test_after_half_a_line_a_new_one_begins(path: Path) -> None:
    script = (
        "import resource, sys; from pathlib import Path; from moorage.audit import AuditLog, Event\n"
        "log = AuditLog(Path(sys.argv[1]))\n"
        "e = Event(event_source='s', event_name='n', outcome='allowed', request_id='r')\n"
        "_, most = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "log.write(e); resource.setrlimit(resource.RLIMIT_FSIZE, (150, most)); log.write(e)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)); log.write(e)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, capture_output=True)
    first, half, missing, last = path.read_text().splitlines()
    assert first[:20] == half[:20]
    assert len(half) < len(first)
    assert json.loads(missing)["count"] == 1
    assert json.loads(last)["requestId"] == "r"


def test_without_a_file_nothing_is_written(caplog: pytest.LogCaptureFixture) -> None:
    log = AuditLog(None)
    log.open()
    log.write(event())
    log.close()
    assert not caplog.records


def test_refusals_are_bounded_by_kind_and_what_is_left_out_is_counted(path: Path) -> None:
    now = 100.0
    made = []

    def make() -> Event:
        made.append(now)
        return event("refused")

    bounded = BoundedAuditLog(AuditLog(path), most_per_second=3, clock=lambda: now)
    for _ in range(10):
        bounded.write("strangers", make)
    bounded.write("callers", make)
    assert len(made) == 4, "nothing is made of what is left out"
    bounded.tell_left_out()
    assert len(lines_of(path)) == 4, "the second is not over"
    now += 1.0
    bounded.tell_left_out()
    bounded.tell_left_out()
    (note,) = lines_of(path)[4:]
    assert (note["eventName"], note["count"]) == ("LinesLeftOut", 7)
    assert "strangers" in note["errorMessage"]
    for _ in range(5):
        bounded.write("strangers", make)
    bounded.close()
    assert [line.get("count") for line in lines_of(path)[5:]] == [None, None, None, 2]
