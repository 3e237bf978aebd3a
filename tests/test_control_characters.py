"""What is spelt out, and what goes, of text that others wrote."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.control_characters import escape, plain

BIDIRECTIONAL = {chr(c) for c in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def is_dangerous(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in BIDIRECTIONAL


@pytest.mark.parametrize(
    ("text", "escaped", "stripped"),
    [
        ("plain ü 日本 👩‍👩‍👧", "plain ü 日本 👩‍👩‍👧", "plain ü 日本 👩‍👩‍👧"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", r"\x1b]0;title\x07x", "x"),
        ("\x1b]52;c;cm0=\x1b\\x", "\\x1b]52;c;cm0=\\x1b\\x", "x"),
        ("\x9b31mred", r"\u009b31mred", "red"),
        ("\x9d0;title\x9cx", r"\u009d0;title\u009cx", "x"),
        ("\x1bcreset", r"\x1bcreset", "reset"),
        ("no end \x1b]0;title", r"no end \x1b]0;title", "no end 0;title"),
        ("10%\r20%", r"10%\r20%", "10%20%"),
        ("a\u202eb\u2028c\x7f\x85", r"a\u202eb\u2028c\u007f\u0085", "abc"),
        ("half \ud83d", r"half \ud83d", "half "),
    ],
)
def test_controls_are_spelt_out_or_dropped(text: str, escaped: str, stripped: str) -> None:
    assert escape(text) == escaped
    assert plain(text) == stripped


def test_what_is_kept_is_given() -> None:
    assert escape("a\n\tb", keep="") == r"a\n\tb"
    assert escape("a\n\tb", keep="\t") == "a\\n\tb"
    assert plain("a\n\tb", keep="") == "ab"


def test_every_dangerous_character_is_known() -> None:
    for code in range(0x11_0000):
        assert (escape(chr(code), keep="") != chr(code)) == is_dangerous(chr(code)), hex(code)


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\x1b\x9b\x9d\x07\x9c[]\\;0m"))))
def test_nothing_dangerous_is_left(text: str) -> None:
    for harmless in (escape(text, keep=""), plain(text, keep="")):
        assert not any(map(is_dangerous, harmless))
        assert escape(harmless, keep="") == plain(harmless, keep="") == harmless


@pytest.mark.parametrize("unit", ["\x9d", "\x1b]", "\x1b", "\x9b0", "\x1b[0 ", "\x1b]\\"])
def test_hostile_text_takes_no_more_time_than_any_other(unit: str) -> None:
    assert plain(unit * 200_000).isprintable()  # a second pass for each character would take hours
