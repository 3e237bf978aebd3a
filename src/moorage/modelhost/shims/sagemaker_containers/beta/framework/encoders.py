"""From bodies to arrays and back."""

import csv
import io
from collections.abc import Callable
from typing import Any

from sagemaker_inference import decoder as _decoder
from sagemaker_inference import encoder as _encoder

from sagemaker_containers.beta.framework import content_types, errors

array_to_json = _encoder._array_to_json
array_to_npy = _encoder._array_to_npy
npy_to_numpy = _decoder._npy_to_numpy
json_to_numpy = _decoder._json_to_numpy


def csv_to_numpy(string_like: str | bytes, dtype: Any = None) -> Any:
    """Numbers as float64, or texts where there are any. One row, or one column, has one dimension."""
    import numpy as np

    text = string_like.decode() if isinstance(string_like, bytes) else string_like
    rows = np.array(list(csv.reader(io.StringIO(text))))
    try:
        return np.squeeze(rows.astype(dtype or np.float64))
    except ValueError as error:
        if dtype is not None:
            raise errors.ClientError(
                f"Error while writing numpy array: {error}. dtype is: {dtype}"
            ) from error
        return np.squeeze(rows)


def array_to_csv(array_like: Any) -> str:
    """One dimension is a column."""
    import numpy as np

    array = np.array(array_like)
    if array.ndim == 1:
        array = array.reshape((-1, 1))
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_MINIMAL).writerows(array.tolist())
    return stream.getvalue()


def array_to_recordio_protobuf(array_like: Any, labels: Any = None) -> bytes:
    """A record for each row, float32 and dense."""
    import numpy as np

    from moorage.modelhost import recordio

    rows = np.atleast_2d(np.asarray(array_like))
    records = []
    for number, row in enumerate(rows):
        label = {} if labels is None else {"values": recordio.float32([float(labels[number])])}
        records.append(recordio.Record(features={"values": recordio.float32(row.tolist())}, label=label))
    return recordio.write(records)


_ENCODERS: dict[str, Callable[[Any], str | bytes]] = {
    content_types.NPY: array_to_npy,
    content_types.CSV: array_to_csv,
    content_types.JSON: array_to_json,
}
_DECODERS: dict[str, Callable[[Any], Any]] = {
    content_types.NPY: npy_to_numpy,
    content_types.CSV: csv_to_numpy,
    content_types.JSON: json_to_numpy,
}


def encode(array_like: Any, content_type: str) -> str | bytes:
    if content_type not in _ENCODERS:
        raise errors.UnsupportedFormatError(content_type)
    return _ENCODERS[content_type](array_like)


def decode(obj: Any, content_type: str) -> Any:
    if content_type not in _DECODERS:
        raise errors.UnsupportedFormatError(content_type)
    return _DECODERS[content_type](obj)
