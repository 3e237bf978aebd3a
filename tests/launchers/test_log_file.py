"""An instance's log: what is in the file, whatever a container prints."""

import asyncio
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.launchers.log_collector import LogCollector
from moorage.launchers.log_file import OWN_PREFIX, LogFile, OutputBudget


def log_in(directory: Path, limit_bytes: int = 10_000) -> LogFile:
    log = LogFile(str(directory / "logs" / "i.log"), limit_bytes=limit_bytes)
    log.open()
    return log


def test_the_tail_holds_only_the_containers_lines_of_this_start(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.write(b"of the start before\n")
    log.forget_tail()
    log.note("instance i-1 started")
    log.write(b"one\n\n  \n\x1b[31mtwo\x1b[0m\r\n\xff three\xc2\x9b2J\xe2\x80\xae")
    assert log.tail() == ("one", "two", "\N{REPLACEMENT CHARACTER} three")
    log.close()


def test_the_tail_is_short_and_so_are_its_lines(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.write(b"".join(b"%d %s\n" % (n, b"x" * 500) for n in range(50)))
    tail = log.tail(lines=3, width=20)
    assert [line[:3] for line in tail] == ["47 ", "48 ", "49 "]
    assert {len(line) for line in tail} == {20}
    log.close()


FORGED = f"{OWN_PREFIX} 2026-01-01T00:00:00Z instance i-1 in service".encode()


@given(st.lists(st.sampled_from([FORGED, b"\n", b"x", FORGED[:3], FORGED[3:9], FORGED[9:], b"[moor\r\n"])))
def test_no_line_of_a_container_looks_like_the_servers(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    log = log_in(tmp_path_factory.mktemp("logs"), limit_bytes=10**6)
    for number, piece in enumerate(pieces):
        log.write(piece)
        if number % 3 == 2:
            log.note("ours")
    log.close()
    lines = log.path.read_bytes().split(b"\n")
    own = [line for line in lines if line.startswith(OWN_PREFIX.encode())]
    assert len(own) == len(pieces) // 3
    assert all(line.endswith(b" ours") for line in own)
    printed = b"\n".join(line for line in lines if line not in own)
    assert printed.replace(b"\n", b"").replace(b" [", b"[") == b"".join(pieces).replace(b"\n", b"").replace(
        b" [", b"["
    )


def test_a_note_is_one_line_whatever_it_says(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.write(b"half a line")
    log.note("two\nlines")
    log.close()
    first, second = log.path.read_text().splitlines()
    assert first == "half a line"
    assert second.endswith("two\\nlines")


def test_the_newest_output_is_kept_and_nothing_is_lost_when_the_file_changes(tmp_path: Path) -> None:
    log = log_in(tmp_path, limit_bytes=2000)
    lines = [b"%04d\n" % number for number in range(1000)]
    for line in lines:
        log.write(line)
    log.close()
    kept = log.path.with_name("i.log.1").read_bytes() + log.path.read_bytes()
    assert 1000 <= len(kept) <= 2000
    assert b"".join(lines).endswith(kept)


def test_a_file_that_a_link_leads_to_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "i.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        log_in(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_what_could_not_be_written_is_counted(tmp_path: Path) -> None:
    log = LogFile("/dev/full", limit_bytes=1000)
    log.open()
    log.write(b"lost\n")
    log.note("lost")
    assert log.tail() == ("lost",)
    log.close()


# --- how much is kept ----------------------------------------------------------------------------------


def test_a_budget_lets_a_burst_through_and_then_the_rate() -> None:
    budget = OutputBudget(rate=100, burst=1000, now=0.0)
    assert budget.take(400, 0.0) == 400
    assert budget.take(1000, 0.0) == 600
    assert budget.take(10, 1.0) == 0, "not a quarter of a burst has come together"
    assert budget.take(10, 3.0) == 10
    assert budget.take(5000, 1000.0) == 1000


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 5, allow_nan=False)), max_size=50),
    st.floats(1, 1000),
    st.floats(1, 1000),
)
def test_never_more_than_a_burst_and_the_rate(
    steps: list[tuple[int, float]], rate: float, burst: float
) -> None:
    budget = OutputBudget(rate=rate, burst=burst, now=0.0)
    now = kept = 0.0
    for size, pause in steps:
        now += pause
        taken = budget.take(size, now)
        assert 0 <= taken <= size
        kept += taken
    assert kept <= burst + rate * now + 1e-6


# --- the pipes -----------------------------------------------------------------------------------------


async def test_a_note_comes_after_what_was_printed_before_it(tmp_path: Path) -> None:
    collector = LogCollector(limit_bytes=10**6)
    log = collector.log(str(tmp_path / "i.log"))
    log.open()
    pipe = log.pipe()
    for number in range(100):
        os.write(pipe, b"printed %d\n" % number)
        log.note(f"noted {number}")
    os.close(pipe)
    assert (await log.tail())[-1] == "printed 99"
    await log.close()
    collector.close()
    lines = [line.rpartition("Z ")[2] for line in (tmp_path / "i.log").read_text().splitlines()]
    for what in ("printed", "noted"):
        assert [line for line in lines if line.startswith(what)] == [f"{what} {n}" for n in range(100)]
    assert all(lines.index(f"printed {n}") < lines.index(f"noted {n}") for n in range(100))


async def test_output_beyond_the_budget_is_left_out_and_counted(tmp_path: Path) -> None:
    collector = LogCollector(limit_bytes=10**8, rate=1000, burst=10_000)
    log = collector.log(str(tmp_path / "i.log"))
    log.open()
    pipe = log.pipe()
    line = b"x" * 99 + b"\n"
    begin = time.monotonic()
    await asyncio.to_thread(os.write, pipe, line * 10_000)
    os.close(pipe)
    await log.close()
    collector.close()
    text = (tmp_path / "i.log").read_text()
    assert len(text) < 11_000 + 1000 * (time.monotonic() - begin)
    left_out = sum(int(each.split()[2]) for each in text.splitlines() if "are left out here" in each)
    assert left_out + text.count("x" * 99 + "\n") == 10_000
    assert "more than 1000 bytes a second" in text


async def test_a_container_that_prints_without_end_delays_no_other_log(tmp_path: Path) -> None:
    collector = LogCollector(limit_bytes=10**6, rate=1000, burst=10_000)
    loud, quiet = (collector.log(str(tmp_path / name)) for name in ("loud", "quiet"))
    loud.open()
    quiet.open()
    loud_pipe, quiet_pipe = loud.pipe(), quiet.pipe()
    writing = asyncio.create_task(asyncio.to_thread(_write_for, loud_pipe, 0.5))
    os.write(quiet_pipe, b"hello\n")
    async with asyncio.timeout(5):
        while await quiet.tail() != ("hello",):
            await asyncio.sleep(0)
    await writing
    for log, pipe in ((loud, loud_pipe), (quiet, quiet_pipe)):
        os.close(pipe)
        await log.close()
    collector.close()
    assert (tmp_path / "loud").stat().st_size < 100_000


def _write_for(pipe: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        os.write(pipe, b"y" * 4096)
