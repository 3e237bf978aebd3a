"""Request bodies -> xgboost.DMatrix: CSV, libsvm and RecordIO-protobuf."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from moorage.modelhost import encoding, recordio
from moorage.modelhost.errors import InvocationError, require

CSV = "csv"
LIBSVM = "libsvm"
RECORDIO = "recordio-protobuf"

KINDS: Final = {
    CSV: CSV,
    LIBSVM: LIBSVM,
    RECORDIO: RECORDIO,
    "text/csv": CSV,
    "text/libsvm": LIBSVM,
    "text/x-libsvm": LIBSVM,
    "application/x-recordio-protobuf": RECORDIO,
}

_FEATURES: Final = "values"
"""The one feature of a record."""

# As Python's csv.Sniffer prefers them.
_DELIMITERS: Final = ",\t; :|"
_SNIFFED_CHARACTERS: Final = 512


@lru_cache(maxsize=256)
def kind(content_type: str) -> str:
    """`Text/CSV; label_size=1` -> `csv`. 415 as InvocationError."""
    found = KINDS.get(encoding.media_type(content_type))
    if found is None:
        raise InvocationError(415, f"{content_type} is not an accepted ContentType: {', '.join(KINDS)}.")
    label_size = re.search(r";\s*label_size\s*=\s*([^;]*)", content_type, re.IGNORECASE)
    if found == CSV and label_size and label_size[1].strip(" \"'") != "1":
        raise InvocationError(
            415,
            f"{content_type} is not an accepted csv ContentType. Optional parameter label_size must be equal to 1",
        )
    return found


def read(body: bytes | str, content_type: str, *, one_based: bool) -> Any:
    """A DMatrix. `content_type` is one that `kind` accepts; a body that is none may raise anything."""
    found = kind(content_type)
    if found == RECORDIO:
        return recordio_matrix(body.encode() if isinstance(body, str) else body)
    text = encoding.text_of(body, content_type).strip(" \r\n")
    if not text:
        raise ValueError("the body is blank")
    return libsvm_matrix(text, one_based=one_based) if found == LIBSVM else csv_matrix(text)


def csv_matrix(text: str) -> Any:
    """An empty field is a missing value."""
    import numpy as np

    lines = text.split("\n")
    delimiter = _delimiter(lines[0])
    rows = [[float(cell.strip() or "nan") for cell in line.split(delimiter)] for line in lines]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise ValueError(f"row {number} has {len(row)} columns, row 1 has {len(rows[0])}")
    return _xgboost().DMatrix(np.array(rows, dtype=np.float64), nthread=1)


def libsvm_matrix(text: str, *, one_based: bool) -> Any:
    """What is not named is missing. `one_based`: whether a body without a feature 0 counts from 1."""
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    lines = text.split("\n")
    for row, line in enumerate(lines):
        for token in line.split():
            name, colon, value = token.partition(":")
            if colon:
                rows.append(row)
                columns.append(int(name))
                values.append(float(value))
    if one_based and columns and min(columns) >= 1:
        columns = [column - 1 for column in columns]
    return _sparse(values, rows, columns, shape=(len(lines), max(columns, default=-1) + 1))


def recordio_matrix(data: bytes) -> Any:
    """Of dense records, or of sparse ones."""
    import numpy as np

    tensors = [_features(number, record) for number, record in enumerate(recordio.read(data), start=1)]
    if not tensors:
        raise ValueError("No records found in RecordIO-Protobuf data")
    # A tensor that has a shape alone is a row of missing values.
    if any(tensor.keys or not tensor.values for tensor in tensors):
        return _sparse_records(tensors)
    dense = np.stack([np.asarray(tensor.values) for tensor in tensors])
    return _xgboost().DMatrix(dense, nthread=1)


def _delimiter(line: str) -> str:
    beginning = line[:_SNIFFED_CHARACTERS]
    return next((each for each in _DELIMITERS if each in beginning), ",")


def _features(number: int, record: recordio.Record) -> recordio.Tensor:
    tensor = record.features.get(_FEATURES)
    if not isinstance(tensor, recordio.Tensor):
        raise ValueError(f"record {number} has no tensor named {_FEATURES!r}")
    if tensor.keys and len(tensor.keys) != len(tensor.values):
        raise ValueError(f"record {number} has {len(tensor.keys)} keys and {len(tensor.values)} values")
    return tensor


def _sparse_records(tensors: Sequence[recordio.Tensor]) -> Any:
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    width = 0
    for row, tensor in enumerate(tensors):
        keys = tensor.keys or range(len(tensor.values))
        rows += [row] * len(keys)
        columns += keys
        values += tensor.values
        width = max(width, *tensor.shape[:1], max(keys, default=-1) + 1)
    return _sparse(values, rows, columns, shape=(len(tensors), width))


def _sparse(values: list[float], rows: list[int], columns: list[int], *, shape: tuple[int, int]) -> Any:
    from scipy.sparse import csr_matrix  # xgboost needs it too

    return _xgboost().DMatrix(csr_matrix((values, (rows, columns)), shape=shape, dtype="float64"), nthread=1)


def _xgboost() -> Any:
    return require("xgboost", by="This model", package="xgboost")
