"""The default formats: a request body -> what `predict_fn` gets, a prediction -> a reply body.

Two things differ from the SageMaker toolkit on purpose: an NPY body may not hold pickled objects (a client
could run code with one), and CSV is always two-dimensional (the toolkit turns a single row into a vector,
which no estimator accepts).
"""

import csv
import io
import json
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from moorage.modelhost.errors import InvocationError

JSON = "application/json"
CSV = "text/csv"
NPY = "application/x-npy"
JSON_LINES = "application/jsonlines"

_ALIASES = {
    "application/x-jsonlines": JSON_LINES,
    "application/jsonl": JSON_LINES,
    "application/x-ndjson": JSON_LINES,
}

# The toolkit hands these to input_fn as str, every other type as bytes.
TEXT_TYPES = frozenset({JSON, CSV})


_BYTES = (bytes, bytearray, memoryview)


@lru_cache(maxsize=256)
def media_type(content_type: str | None) -> str:
    """`Text/CSV; header=absent` -> `text/csv`."""
    return (content_type or "").partition(";")[0].strip().lower()


def to_text(body: bytes) -> str:
    try:
        return body.removeprefix(BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise InvocationError(400, f"The body is not UTF-8 text: {error}.") from error


def text_of(body: bytes | str, content_type: str | None) -> str:
    """The text of a body, in the `charset` of its content type."""
    if isinstance(body, str):
        return body
    charset = _charset(content_type)
    if charset is None:
        return to_text(body)
    try:
        return body.decode(charset)
    except LookupError as error:
        raise InvocationError(415, f"The charset {charset!r} is not known: send UTF-8.") from error
    except UnicodeDecodeError as error:
        raise InvocationError(400, f"The body is not {charset} text: {error}.") from error


@lru_cache(maxsize=256)
def _charset(content_type: str | None) -> str | None:
    """None for UTF-8."""
    for parameter in (content_type or "").split(";")[1:]:
        name, _, value = parameter.partition("=")
        charset = value.strip().strip("\"'").lower()
        if name.strip().lower() == "charset" and charset not in ("", "utf-8", "utf8"):
            return charset
    return None


def decode(body: bytes | str, content_type: str | None) -> Any:
    """An array; or, of JSON objects, plain dicts. 415 and 400 as InvocationError."""
    media = media_type(content_type)
    decoder = _DECODERS.get(_ALIASES.get(media, media))
    if decoder is None:
        named = (
            f"Content type {content_type!r} is not supported"
            if content_type
            else "The Content-Type is missing"
        )
        raise InvocationError(
            415, f"{named}: send one of {', '.join(_DECODERS)}, or give the model an input_fn that reads it."
        )
    if decoder is not _decode_npy:
        body = text_of(body, content_type)
    try:
        return decoder(body)
    except ValueError as error:
        raise InvocationError(400, f"The body is not valid {media}: {error}.") from error


def encode(prediction: Any, media: str) -> bytes:
    """`media` is one that `choose` gave."""
    if isinstance(prediction, _BYTES):
        return bytes(prediction)
    return _ENCODERS[_ALIASES.get(media, media)](prediction)


def supports(media: str) -> bool:
    return _ALIASES.get(media, media) in _ENCODERS


@lru_cache(maxsize=256)
def choose(accept: str, default_accept: str) -> str:
    """The first type of an Accept header that can be encoded, or 406 as InvocationError."""
    for wanted in preferences(accept):
        if supports(wanted):
            return wanted
        family = wanted.removesuffix("*")
        if wanted.endswith("/*"):
            for candidate in (media_type(default_accept), *_ENCODERS):
                if supports(candidate) and (family == "*/" or candidate.startswith(family)):
                    return candidate
    raise InvocationError(
        406, f"Accept {accept!r} is not supported: ask for one of {', '.join(_ENCODERS)}, "
        "or give the model an output_fn that writes it."
    )  # fmt: skip


@lru_cache(maxsize=256)
def preferences(accept: str) -> tuple[str, ...]:
    """The media types of an Accept header, best first."""
    ranked = []
    for item in accept.split(","):
        media, _, parameters = item.partition(";")
        quality = 1.0
        for parameter in parameters.split(";"):
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
        if media.strip() and quality > 0:
            ranked.append((quality, media.strip().lower()))
    return tuple(media for _, media in sorted(ranked, key=lambda pair: -pair[0]))


def _as_array(data: Any) -> Any:
    """Numbers and nested lists become an array; what holds objects stays as it is, and so does everything
    where numpy is not installed."""
    if isinstance(data, dict) or (isinstance(data, list) and dict in map(type, data)):
        return data
    try:
        import numpy as np
    except ModuleNotFoundError:
        return data
    return np.array(data)


def _decode_json(body: bytes | str) -> Any:
    return _as_array(json.loads(body))


def _decode_json_lines(body: bytes | str) -> Any:
    text = body if isinstance(body, str) else to_text(body)
    return _as_array([json.loads(line) for line in text.splitlines() if line.strip()])


def _decode_csv(body: bytes | str) -> Any:
    import numpy as np

    text = body if isinstance(body, str) else to_text(body)
    if not text.strip():
        raise ValueError("it is empty")
    try:
        return np.loadtxt(io.StringIO(text), delimiter=",", comments=None, ndmin=2)
    except ValueError:
        # Text, quotes or empty cells: the slow way keeps what is not a number as it is.
        return _mixed_rows(text)


def _mixed_rows(text: str) -> Any:
    import numpy as np

    rows = [[_cell(cell) for cell in row] for row in csv.reader(io.StringIO(text)) if row]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise ValueError(f"row {number} has {len(row)} columns, row 1 has {len(rows[0])}")
    numeric = all(isinstance(cell, float) for row in rows for cell in row)
    return np.array(rows, dtype=float if numeric else object)


def _cell(text: str) -> float | str:
    try:
        return float(text) if text.strip() else float("nan")
    except ValueError:
        return text


def _decode_npy(body: bytes | str) -> Any:
    import numpy as np

    data = body.encode("latin-1") if isinstance(body, str) else body
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except EOFError as error:
        raise ValueError(str(error)) from error


def _plain(value: Any) -> Any:
    """Numpy arrays and scalars, tensors and series all have tolist()."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(
        f"a {type(value).__name__} cannot be written as JSON: return plain values, or write an output_fn"
    )


_as_json = json.JSONEncoder(default=_plain).encode


def _encode_json(prediction: Any) -> bytes:
    return _as_json(prediction).encode()


def _encode_json_lines(prediction: Any) -> bytes:
    rows = _rows(prediction)
    return b"".join(_encode_json(row) + b"\n" for row in rows)


def _encode_csv(prediction: Any) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in _rows(prediction):
        cells = row if isinstance(row, list | tuple) else [row]
        if any(isinstance(cell, list | tuple | dict) for cell in cells):
            raise InvocationError(406, f"This prediction is no table that {CSV} could hold: ask for {JSON}.")
        writer.writerow(cells)
    return text.getvalue().encode()


def _rows(prediction: Any) -> list[Any]:
    plain = prediction.tolist() if hasattr(prediction, "tolist") else prediction
    if isinstance(plain, Mapping):
        raise InvocationError(
            406, f"This prediction is an object with {', '.join(map(str, plain))}, not rows: ask for {JSON}."
        )
    return list(plain) if isinstance(plain, list | tuple) else [plain]


def _encode_npy(prediction: Any) -> bytes:
    import numpy as np

    stream = io.BytesIO()
    try:
        np.save(stream, np.asarray(prediction), allow_pickle=False)
    except ValueError as error:
        raise InvocationError(
            406, f"This prediction is no array that {NPY} could hold: ask for {JSON}."
        ) from error
    return stream.getvalue()


_DECODERS: dict[str, Callable[[bytes | str], Any]] = {
    JSON: _decode_json,
    CSV: _decode_csv,
    NPY: _decode_npy,
    JSON_LINES: _decode_json_lines,
}
_ENCODERS: dict[str, Callable[[Any], bytes]] = {
    JSON: _encode_json,
    CSV: _encode_csv,
    NPY: _encode_npy,
    JSON_LINES: _encode_json_lines,
}
