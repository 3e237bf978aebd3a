"""An instance's log."""

import os
from pathlib import Path

from moorage.launchers.log_file import LogFile


def log_in(directory: Path, limit_bytes: int = 1000) -> LogFile:
    return LogFile(str(directory / "logs" / "i.log"), limit_bytes=limit_bytes)


def write(log: LogFile, data: bytes) -> None:
    descriptor = log.open()
    os.write(descriptor, data)
    os.close(descriptor)


def test_the_tail_holds_only_the_containers_lines_of_this_start(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    write(log, b"of the start before\n")
    log.mark()
    log.note("instance i-1 started")
    write(log, b"one\n\n  \n\x1b[31mtwo\x1b[0m\r\n\xff three")
    assert log.tail() == ("one", "two", "\N{REPLACEMENT CHARACTER} three")


def test_the_tail_is_short_and_so_are_its_lines(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    write(log, b"".join(b"%d %s\n" % (n, b"x" * 500) for n in range(50)))
    tail = log.tail(lines=3, width=20)
    assert [line[:3] for line in tail] == ["47 ", "48 ", "49 "]
    assert {len(line) for line in tail} == {20}


def test_a_log_that_is_not_there_has_no_tail(tmp_path: Path) -> None:
    assert log_in(tmp_path).tail() == ()
    assert not log_in(tmp_path).is_too_long()


def test_a_long_log_is_moved_aside_while_it_is_written(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    child = log.open()
    os.write(child, b"a" * 1001)
    assert log.is_too_long()
    log.rotate()
    os.write(child, b"after\n")
    os.close(child)
    assert log.path.with_name("i.log.1").read_bytes() == b"a" * 1001
    assert not log.is_too_long()
    assert log.tail() == ("after",)
    assert log.path.read_text().startswith("[moorage] ")
