"""Request bodies and replies of the images for Hugging Face."""

import base64
import csv
import io
import json
from collections.abc import Callable, Mapping
from datetime import date, time
from typing import Any, Final

from moorage.modelhost import encoding
from moorage.modelhost.errors import InvocationError, require

_KEYS_OF_CSV: Final = {"inputs", "question", "context"}

# The name that PIL has for each.
_IMAGES: Final = {
    "image/png": "PNG",
    "image/x-image": "PNG",
    "image/jpeg": "JPEG",
    "image/tiff": "TIFF",
    "image/bmp": "BMP",
    "image/gif": "GIF",
    "image/webp": "WEBP",
}


def decode(body: bytes | str, content_type: str | None) -> Any:
    """What a pipeline is asked: mostly an object with `inputs`. 415 and 400 as InvocationError."""
    media = encoding.media_type(content_type)
    if media.startswith("image/"):
        return {"inputs": _image(_bytes(body))}
    if media.startswith("audio/"):
        return {"inputs": _bytes(body)}
    if media == encoding.NPY:
        return encoding.decode(body, content_type)
    decoder = _TEXT_DECODERS.get(media)
    if decoder is None:
        named = f"Content type {content_type} is" if content_type else "A request without Content-Type is"
        raise InvocationError(
            415,
            f"{named} not supported: send {', '.join(_TEXT_DECODERS)}, {encoding.NPY}, image/* or audio/*, or give "
            "the model an input_fn that reads it.",
        )
    text = encoding.text_of(body, content_type)
    try:
        return decoder(text)
    except ValueError as error:
        raise InvocationError(400, str(error)) from error


def choose(accept: str) -> str:
    """The first type of an Accept header that can be written, or 406 as InvocationError."""
    for wanted in encoding.preferences(accept):
        if wanted in _ENCODERS:
            return wanted
        if wanted in ("*/*", "application/*"):
            return encoding.JSON
        if wanted in ("text/*", "image/*"):
            return encoding.CSV if wanted == "text/*" else "image/png"
    raise InvocationError(
        406,
        f"Accept {accept!r} is not supported: ask for one of {', '.join(_ENCODERS)}, or give the model an "
        "output_fn that writes it.",
    )


def encode(prediction: Any, media: str) -> bytes:
    """`media` is one that `choose` gave. ValueError where JSON has no such number."""
    return _ENCODERS[media](prediction)


def _bytes(body: bytes | str) -> bytes:
    return body.encode() if isinstance(body, str) else body


def _image(body: bytes) -> Any:
    images = require("PIL.Image", by="An image", package="pillow", extra="transformers")
    try:
        return images.open(io.BytesIO(body)).convert("RGB")
    except Exception as error:  # of whatever kind: the body is not what it is said to be
        raise InvocationError(400, f"The body is no image that can be read: {error}") from error


def _decode_csv(text: str) -> Any:
    """An input for each line; line 1 names the columns."""
    rows = csv.DictReader(io.StringIO(text))
    names = [name.lower() for name in rows.fieldnames or ()]
    if _KEYS_OF_CSV.isdisjoint(names):
        raise ValueError(
            "You need to provide the correct CSV with Header columns: line 1 names the columns, one of them "
            "inputs, or question and context."
        )
    rows.fieldnames = names
    table = list(rows)
    return {"inputs": [row["inputs"] for row in table] if "inputs" in names else table}


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy arrays and scalars, tensors
        return value.tolist()
    if isinstance(value, (date, time)):
        return value.isoformat()
    if _is_image(value):
        return base64.b64encode(_encode_image(value, "PNG")).decode()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


_as_json: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
).encode


def _encode_json(prediction: Any) -> bytes:
    return _as_json(prediction).encode()


def _encode_csv(prediction: Any) -> bytes:
    if not isinstance(prediction, list) or not all(isinstance(each, Mapping) for each in prediction):
        raise InvocationError(
            400,
            "You can only use text/csv for a list of objects, which this prediction is not: ask for JSON.",
        )
    names = list(dict.fromkeys(name for row in prediction for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(prediction)
    return text.getvalue().encode()


def _is_image(value: Any) -> bool:
    """Without importing PIL, which most models do not need."""
    return any(base.__module__ == "PIL.Image" for base in type(value).__mro__)


def _encode_image(prediction: Any, name: str) -> bytes:
    if not _is_image(prediction):
        raise InvocationError(
            400, f"The prediction is no image but a {type(prediction).__name__}: ask for JSON."
        )
    stream = io.BytesIO()
    prediction.save(stream, format=name)
    return stream.getvalue()


def _image_encoder(name: str) -> Callable[[Any], bytes]:
    return lambda prediction: _encode_image(prediction, name)


_TEXT_DECODERS: Final[dict[str, Callable[[str], Any]]] = {
    encoding.JSON: json.loads,
    encoding.CSV: _decode_csv,
}
_ENCODERS: Final[dict[str, Callable[[Any], bytes]]] = {
    encoding.JSON: _encode_json,
    encoding.CSV: _encode_csv,
    encoding.NPY: lambda prediction: encoding.encode(prediction, encoding.NPY),
    **{media: _image_encoder(name) for media, name in _IMAGES.items()},
}
