"""From bodies to arrays. No pickled objects are read: clients could run code with them."""

import io
import json
from collections.abc import Callable
from typing import Any

from sagemaker_inference import content_types, errors


def _json_to_numpy(string_like: str, dtype: Any = None) -> Any:
    import numpy as np

    return np.array(json.loads(string_like), dtype=dtype)


def _csv_to_numpy(string_like: str, dtype: Any = None) -> Any:
    import numpy as np

    return np.genfromtxt(io.StringIO(string_like), dtype=dtype, delimiter=",")


def _npy_to_numpy(npy_array: bytes) -> Any:
    import numpy as np

    return np.load(io.BytesIO(npy_array), allow_pickle=False)


def _npz_to_sparse(npz_bytes: bytes) -> Any:
    import scipy.sparse

    return scipy.sparse.load_npz(io.BytesIO(npz_bytes))


_DECODERS: dict[str, Callable[[Any], Any]] = {
    content_types.NPY: _npy_to_numpy,
    content_types.CSV: _csv_to_numpy,
    content_types.JSON: _json_to_numpy,
    content_types.NPZ: _npz_to_sparse,
}
SUPPORTED_CONTENT_TYPES = set(_DECODERS)


def decode(obj: Any, content_type: str | None) -> Any:
    decoder = _DECODERS.get(content_type or "")
    if decoder is None:
        raise errors.UnsupportedFormatError(content_type)
    return decoder(obj)
