import io
import math
from typing import Any

import numpy as np
import pytest

from moorage.modelhost import encoding
from moorage.modelhost.errors import InvocationError


def npy(array: Any, *, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        ("[[1, 2], [3, 4]]", "application/json", [[1, 2], [3, 4]]),
        ("[1, 2]", "application/json; charset=utf-8", [1, 2]),
        ("3", "application/json", 3),
        ("1,2\n3,4.5\n", "text/csv", [[1, 2], [3, 4.5]]),
        ("1,2", "Text/CSV", [[1, 2]]),
        ("1,a\n2,'b\"c'", "text/csv", [[1.0, "a"], [2.0, "'b\"c'"]]),
        ('"x, y",1\n', "text/csv", [["x, y", 1.0]]),
        (npy(np.array([[1, 2]])), "application/x-npy", [[1, 2]]),
        (b"[1, 2]\n[3, 4]\n\n", "application/jsonlines", [[1, 2], [3, 4]]),
        (b"[1, 2]", "application/x-ndjson", [[1, 2]]),
    ],
)
def test_default_input_is_an_array(body: Any, content_type: str, expected: Any) -> None:
    assert encoding.decode(body, content_type).tolist() == expected


def test_json_objects_stay_objects() -> None:
    assert encoding.decode('{"a": [1]}', "application/json") == {"a": [1]}
    assert encoding.decode('[{"a": 1}, {"a": 2}]', "application/json") == [{"a": 1}, {"a": 2}]
    assert encoding.decode(b'{"a": 1}\n', "application/jsonlines") == [{"a": 1}]


def test_an_empty_csv_cell_is_not_a_number() -> None:
    assert math.isnan(encoding.decode("1,,3", "text/csv")[0][1])


@pytest.mark.parametrize(
    ("body", "content_type", "why"),
    [
        ('{"a"', "application/json", "line 1 column"),
        ("", "application/json", "application/json"),
        ("[[1, 2], [3]]", "application/json", "inhomogeneous"),
        ("", "text/csv", "empty"),
        ("1,2\n3\na,b", "text/csv", "row 2 has 1 columns, row 1 has 2"),
        (b"no array", "application/x-npy", "application/x-npy"),
        (b"", "application/x-npy", "application/x-npy"),
        (b"\xff\xfe\xfd", "application/jsonlines", "UTF-8"),
    ],
)
def test_a_body_that_cannot_be_read_is_400(body: Any, content_type: str, why: str) -> None:
    with pytest.raises(InvocationError, match=why) as refused:
        encoding.decode(body, content_type)
    assert refused.value.status == 400


def test_npy_input_may_not_hold_code() -> None:
    with pytest.raises(InvocationError) as refused:
        encoding.decode(npy(np.array([print]), allow_pickle=True), "application/x-npy")
    assert refused.value.status == 400


@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream", "", None])
def test_an_unknown_content_type_is_415(content_type: str | None) -> None:
    with pytest.raises(InvocationError, match="input_fn") as refused:
        encoding.decode(b"", content_type)
    assert refused.value.status == 415


@pytest.mark.parametrize(
    ("prediction", "media", "expected"),
    [
        (np.array([[1.5, 2], [3, 4]]), "application/json", b"[[1.5, 2.0], [3.0, 4.0]]"),
        ({"label": np.int64(3), "p": np.array([0.5])}, "application/json", b'{"label": 3, "p": [0.5]}'),
        ("text", "application/json", b'"text"'),
        (np.array([[1, 2], [3, 4]]), "text/csv", b"1,2\n3,4\n"),
        (np.array([1, 2]), "text/csv", b"1\n2\n"),
        (np.float64(0.5), "text/csv", b"0.5\n"),
        ([["a,b", 1]], "text/csv", b'"a,b",1\n'),
        (np.array([[1, 2], [3, 4]]), "application/jsonlines", b"[1, 2]\n[3, 4]\n"),
        (b"as it is", "text/csv", b"as it is"),
    ],
)
def test_default_output(prediction: Any, media: str, expected: bytes) -> None:
    assert encoding.encode(prediction, media) == expected


def test_npy_output() -> None:
    body = encoding.encode([[1, 2]], "application/x-npy")
    assert np.load(io.BytesIO(body)).tolist() == [[1, 2]]


@pytest.mark.parametrize("prediction", [{"a": 1}, np.zeros((2, 2, 2)), [{"a": 1}]])
def test_a_prediction_that_is_no_table_is_406_as_csv(prediction: Any) -> None:
    with pytest.raises(InvocationError, match="application/json") as refused:
        encoding.encode(prediction, "text/csv")
    assert refused.value.status == 406


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("application/json", "application/json"),
        ("text/csv; charset=utf-8", "text/csv"),
        ("image/png, text/csv", "text/csv"),
        ("application/json;q=0.5, text/csv", "text/csv"),
        ("image/png, */*;q=0.1", "application/x-npy"),
        ("text/*", "text/csv"),
    ],
)
def test_the_best_acceptable_type_is_chosen(accept: str, chosen: str) -> None:
    assert encoding.choose(accept, "application/x-npy") == chosen


@pytest.mark.parametrize("accept", ["image/png", "application/json;q=0"])
def test_no_acceptable_type_is_406(accept: str) -> None:
    with pytest.raises(InvocationError, match="output_fn") as refused:
        encoding.choose(accept, "application/json")
    assert refused.value.status == 406
