"""What requests and replies of these images look like."""

import base64
import csv
import datetime
import io
import json
from collections.abc import Callable
from typing import Any, Final

from moorage.modelhost import encoding
from moorage.modelhost.encoding import CSV, JSON, NPY
from moorage.modelhost.errors import InvocationError, require

_IMAGES: Final = {
    "image/jpeg": "JPEG", "image/png": "PNG", "image/tiff": "TIFF", "image/bmp": "BMP", "image/gif": "GIF",
    "image/webp": "WEBP", "image/x-image": "PNG",
}  # fmt: skip
"""With the format in which each is written."""

_AUDIO: Final = (
    *("audio/x-flac", "audio/flac", "audio/mpeg", "audio/wave", "audio/wav", "audio/x-wav", "audio/ogg"),
    "audio/x-audio",
)
_COLUMNS: Final = frozenset({"question", "context", "inputs"})


def decode(body: bytes | str, content_type: str) -> Any:
    """400 and 415 as InvocationError."""
    media = encoding.media_type(content_type)
    try:
        if media == JSON:
            return json.loads(encoding.text_of(body, content_type))
        if media == CSV:
            return {"inputs": _decode_csv(encoding.text_of(body, content_type))}
        if media == NPY:
            return encoding.decode(body, media)
        if media in _IMAGES:
            return {"inputs": _decode_image(body)}
        if media in _AUDIO:
            return {"inputs": bytes(body) if not isinstance(body, str) else body.encode("latin-1")}
    except ValueError as error:
        raise InvocationError(400, f"The body is not valid {media}: {error}.") from error
    known = ", ".join((JSON, CSV, NPY, *_IMAGES, *_AUDIO))
    raise InvocationError(415, f"Content type {content_type} is not supported: send one of {known}.")


def _decode_csv(text: str) -> list[Any]:
    rows = list(csv.DictReader(io.StringIO(text)))
    names = rows[0].keys() if rows else set(text.partition("\n")[0].strip().split(","))
    if not _COLUMNS & {str(name).strip().lower() for name in names}:
        raise InvocationError(
            400,
            'You need to provide the correct CSV with Header columns "inputs", or "question" and "context".',
        )
    if "inputs" in names:
        return [row["inputs"] for row in rows]
    return rows


def _decode_image(body: bytes | str) -> Any:
    image = require("PIL.Image", by="An image", package="pillow", extra="transformers")
    data = body.encode("latin-1") if isinstance(body, str) else body
    try:
        return image.open(io.BytesIO(data)).convert("RGB")
    except OSError as error:
        raise ValueError(str(error)) from error


def choose(accept: str) -> str:
    """The first type of an Accept header that can be written. 406 as InvocationError."""
    for wanted in encoding.preferences(accept):
        if wanted in ("*/*", "application/*"):
            return JSON
        if wanted in _ENCODERS or wanted in _IMAGES:
            return wanted
    known = ", ".join((*_ENCODERS, *_IMAGES))
    raise InvocationError(406, f"Accept {accept} is not supported: ask for one of {known}.")


def encode(prediction: Any, media: str) -> bytes:
    if media in _IMAGES:
        return _image_bytes(prediction, _IMAGES[media])
    return _ENCODERS[media](prediction)


def _encode_json(prediction: Any) -> bytes:
    try:
        text = json.dumps(
            prediction, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
        )
    except ValueError as error:
        raise InvocationError(400, str(error)) from error
    return text.encode()


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if _is_image(value):
        return base64.b64encode(_image_bytes(value, "PNG")).decode()
    raise TypeError(
        f"a {type(value).__name__} cannot be written as JSON: return plain values, or write an output_fn"
    )


def _is_image(value: Any) -> bool:
    return any(base.__module__.startswith("PIL.") for base in type(value).__mro__)


def _image_bytes(value: Any, kind: str) -> bytes:
    if not _is_image(value):
        raise InvocationError(
            406, f"This prediction is a {type(value).__name__}, not an image: ask for {JSON}."
        )
    stream = io.BytesIO()
    value.save(stream, format=kind)
    return stream.getvalue()


def _encode_csv(prediction: Any) -> bytes:
    if (
        not isinstance(prediction, list)
        or not all(isinstance(row, dict) for row in prediction)
        or not prediction
    ):
        raise InvocationError(
            400, f"This prediction is no list of objects that {CSV} could hold: ask for {JSON}."
        )
    text = io.StringIO()
    writer = csv.DictWriter(text, list(prediction[0]))
    writer.writeheader()
    writer.writerows(prediction)
    return text.getvalue().encode()


def _encode_npy(prediction: Any) -> bytes:
    return encoding.encode(prediction, NPY)


_ENCODERS: Final[dict[str, Callable[[Any], bytes]]] = {JSON: _encode_json, CSV: _encode_csv, NPY: _encode_npy}
