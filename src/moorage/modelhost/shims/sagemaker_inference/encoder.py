"""From arrays to bodies."""

import io
import json
from collections.abc import Callable
from typing import Any

from sagemaker_inference import content_types, errors


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")


def _array_to_json(array_like: Any) -> str:
    return json.dumps(array_like, default=_plain)


def _array_to_npy(array_like: Any) -> bytes:
    import numpy as np

    stream = io.BytesIO()
    np.save(stream, array_like)
    return stream.getvalue()


def _array_to_csv(array_like: Any) -> str:
    import numpy as np

    stream = io.StringIO()
    np.savetxt(stream, array_like, delimiter=",", fmt="%s")
    return stream.getvalue()


_ENCODERS: dict[str, Callable[[Any], str | bytes]] = {
    content_types.NPY: _array_to_npy,
    content_types.CSV: _array_to_csv,
    content_types.JSON: _array_to_json,
}
SUPPORTED_CONTENT_TYPES = set(_ENCODERS)


def encode(array_like: Any, content_type: str) -> str | bytes:
    encoder = _ENCODERS.get(content_type)
    if encoder is None:
        raise errors.UnsupportedFormatError(content_type)
    return encoder(array_like)
