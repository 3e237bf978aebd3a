import time
from collections.abc import Iterator

import pytest
from botocore.loaders import Loader

from moorage.wire import patterns


def models() -> Iterator[tuple[str, int]]:
    """Every pattern of the whole model, with the longest value that is tried on it."""
    shapes = Loader().load_service_model("sagemaker", "service-2")["shapes"]
    found = {
        (shape["pattern"], min(shape.get("max", 4096), 4096))
        for shape in shapes.values()
        if "pattern" in shape
    }
    yield from sorted(found)


ALL = list(models())


def test_the_model_has_patterns() -> None:
    assert len(ALL) > 200


@pytest.mark.parametrize("pattern", sorted({pattern for pattern, _ in ALL}))
def test_every_pattern_of_the_model_compiles(pattern: str) -> None:
    assert patterns.compiled(pattern) is patterns.compiled(pattern)


def test_no_value_takes_a_pattern_long() -> None:
    heads = (
        "",
        "https://",
        "s3://",
        "arn:aws:sagemaker:us-east-1:123456789012:",
        "arn:aws:iam::123456789012:role/",
    )
    bodies = ("a", "-", "a-", "a/", "a.", ".", " ", "1", "1.", "\n", "a ", "é", ":", "_", "Z-")
    slowest = 0.0
    for pattern, length in ALL:
        compiled = patterns.compiled(pattern)
        for value in ((head + body * length)[: length - 1] + "\u2028" for head in heads for body in bodies):
            start = time.process_time()
            compiled.fullmatch(value)
            slowest = max(slowest, time.process_time() - start)
    assert slowest < 0.25


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("[a-z]+", ["abc"], ["abc\n", "Abc", "", "abc1"]),
        (r"[\p{L}\p{Z}\p{N}_.:/=+\-@]*", ["", "Zürich 5/ñ:٣-Ж", "\u3000"], ["a#b", "\u0301", "😀"]),
        (r"\p{L}+", ["aЖ"], ["1", ""]),
        (r"\P{L}+", ["12 "], ["1a"]),
        (r"[\p{Alnum}\-]+", ["aZ9-"], ["é", "_"]),
        (r"\A\S[\p{Print}]*\z", ["x y~"], [" x", "x\n", "xé"]),
        (".*", ["", "a b"], ["a\nb", "a\rb", "a\u0085b", "a\u2028b", "\u2029"]),
        (r"[\S\s]*", ["", "a\nb\u2028"], []),
        (r"\d+", ["12"], ["١٢"]),
        (r"\w+", ["a_1"], ["é"]),
        (r"(?!\s*$).+", ["a", " a"], [" ", "", "\t"]),
        (r"a$|^b", ["a", "b"], ["a\n", "ab"]),
        (r"(a*)${1,128}", ["", "aa"], ["ab"]),
        (r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\t]*", ["a\t😀\U0010ffff"], ["\n", "\uffff"]),
        (r".*(?:[ \r\n\t].*)*", ["a b\r\nc\td", ""], ["a\u2028b"]),
        (r"[a-z0-9]([-a-z0-9]*[a-z0-9]){0,39}?", ["a", "a-b", "0--0"], ["-a", "a-", ""]),
        (
            r"https://([.\-_a-zA-Z0-9]+/?){3,1016}",
            ["https://abc", "https://a/b/c", "https://a.b/c/"],
            ["https://ab", "https://a/b", "https://a//bc", "https:///abc", "https://abc//"],
        ),
        (r"(arn:.*/)?([a-z0-9-]+)(?<!-)", ["a-b"], ["a-"]),
    ],
)
def test_patterns_mean_what_they_mean_in_java(pattern: str, good: list[str], bad: list[str]) -> None:
    compiled = patterns.compiled(pattern)
    assert [value for value in good if not compiled.fullmatch(value)] == []
    assert [value for value in bad if compiled.fullmatch(value)] == []


@pytest.mark.parametrize("pattern", [r"\p{Nonsense}", r"[\P{L}]"])
def test_what_is_not_understood_is_an_error(pattern: str) -> None:
    with pytest.raises(ValueError, match="p"):
        patterns.translate(pattern)
