"""Header values as text."""

from hypothesis import given
from hypothesis import strategies as st

from moorage.wire import header_text


@given(st.text())
def test_text_comes_back_whatever_a_library_takes_it_for(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    assert header_text.decode(text.encode()) == text
    assert header_text.from_latin_1(text.encode().decode("latin-1")) == text
    assert header_text.decode_all([(b"name", text.encode())]) == {"name": text}


def test_bytes_that_are_no_text_are_replaced_and_told() -> None:
    assert header_text.decode(b"a\xffb") == "a\ufffdb"
    assert not header_text.is_text(b"a\xff")
    assert header_text.is_text("日本".encode())


def test_a_header_carries_all_but_controls() -> None:
    assert header_text.can_carry("s3://out/日本\t\x85 ü")
    refused = [chr(code) for code in range(256) if not header_text.can_carry(f"a{chr(code)}b")]
    assert refused == [chr(code) for code in (*range(9), *range(10, 32), 127)]
