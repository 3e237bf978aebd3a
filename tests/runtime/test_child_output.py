"""What the embedded S3 prints, as records of the server's log."""

import asyncio
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.runtime.child_output import LineSplitter, follow, parse_s3_line


@given(st.lists(st.binary(max_size=8) | st.sampled_from([b"\n", b"a\n"]), max_size=20))
def test_lines_do_not_depend_on_the_pieces_they_come_in(pieces: list[bytes]) -> None:
    splitter = LineSplitter()
    lines = [line for piece in pieces for line in splitter.feed(piece)] + [splitter.rest()]
    assert lines == [
        *(line.rstrip(b"\r") for line in b"".join(pieces).split(b"\n")[:-1]),
        b"".join(pieces).split(b"\n")[-1],
    ]


def test_a_line_without_end_takes_no_more_than_its_limit() -> None:
    splitter = LineSplitter(longest=10)
    for _ in range(1000):
        assert splitter.feed(b"x" * 100) == []
        assert len(splitter._begun) == 10
    assert splitter.feed(b"y\nshort\n") == [b"x" * 10, b"short"]


async def test_an_output_is_followed_to_its_end() -> None:
    output = asyncio.StreamReader()
    output.feed_data(b"one\n\ntwo \xff\r\nthr")
    output.feed_data(b"ee")
    output.feed_eof()
    taken: list[str] = []
    await follow(output, taken.append)
    assert taken == ["one", "two \ufffd", "three"]


@pytest.mark.parametrize(
    ("line", "level", "text"),
    [
        ({"level": "ERROR", "msg": "no space left", "time": "x"}, logging.ERROR, "no space left"),
        ({"level": "INFO", "msg": "metadata is kept in x "}, logging.INFO, "metadata is kept in x"),
        ({"level": "ERROR", "msg": "write object data: unexpected EOF"}, logging.DEBUG, None),
        ({"level": "ERROR", "msg": "failed: context canceled"}, logging.DEBUG, None),
        ({"level": "ERROR"}, logging.WARNING, '{"level": "ERROR"}'),
        ({"level": ["ERROR"], "msg": "x"}, logging.WARNING, '{"level": ["ERROR"], "msg": "x"}'),
        (["error"], logging.WARNING, '["error"]'),
    ],
)
def test_lines_of_the_s3(line: object, level: int, text: str | None) -> None:
    found = parse_s3_line(json.dumps(line))
    assert found[0] == level
    assert text is None or found[1] == text


def test_what_is_no_json_is_kept_as_it_stands() -> None:
    assert parse_s3_line("panic: runtime error") == (logging.WARNING, "panic: runtime error")
    assert parse_s3_line("[" * 100_000)[0] == logging.WARNING
