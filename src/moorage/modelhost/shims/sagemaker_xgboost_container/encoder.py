"""From bodies to DMatrices."""

import json
from typing import Any

from moorage.modelhost.families.xgboost import matrices


def _text(body: str | bytes) -> str:
    return body.decode() if isinstance(body, bytes) else body


def csv_to_dmatrix(input: str | bytes, dtype: Any = None) -> Any:
    return matrices.csv_matrix(_text(input).strip(" \r\n"))


def libsvm_to_dmatrix(string_like: str | bytes) -> Any:
    return matrices.libsvm_matrix(_text(string_like).strip(" \r\n"), one_based=False)


def recordio_protobuf_to_dmatrix(string_like: bytes) -> Any:
    return matrices.recordio_matrix(string_like)


def decode(obj: str | bytes, content_type: str) -> Any:
    """The content type may have parameters."""
    from sagemaker_inference.errors import UnsupportedFormatError

    from moorage.modelhost.errors import InvocationError

    try:
        matrices.kind(content_type)
    except InvocationError as error:
        raise UnsupportedFormatError(content_type) from error
    return matrices.read(obj, content_type, one_based=False)


def json_to_jsonlines(json_data: dict[str, Any] | str) -> bytes:
    """The list below the one key, an object a line."""
    document = json.loads(json_data) if isinstance(json_data, str) else json_data
    if len(document) != 1:
        raise ValueError("JSON document must have exactly one top-level key")
    (rows,) = document.values()
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
