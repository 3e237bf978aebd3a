"""Predictions of algorithm mode -> reply bodies."""

import json
from collections.abc import Callable
from typing import Any, Final

from moorage.modelhost import encoding, recordio

RECORDIO = "application/x-recordio-protobuf"

Rows = list[dict[str, Any]]
"""Of each record what is told of it."""


def scores_as_csv(scores: list[Any]) -> bytes:
    """A line for each record: a number, or one for each class."""
    lines = (",".join(map(str, each)) if isinstance(each, list) else str(each) for each in scores)
    return "".join(f"{line}\n" for line in lines).encode()


def scores_as_lines(scores: list[Any]) -> bytes:
    """What batch transform reads."""
    return "".join(f"{each}\n" for each in scores).encode()


def rows_as_csv(rows: Rows) -> bytes:
    """Lists are quoted, and the last line has no end."""
    return "\n".join(",".join(map(_cell, row.values())) for row in rows).encode()


def _cell(value: Any) -> str:
    return f'"{value}"' if isinstance(value, list) else str(value)


def _as_json(rows: Rows) -> bytes:
    return json.dumps({"predictions": rows}).encode()


def _as_json_lines(rows: Rows) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def _as_recordio(rows: Rows) -> bytes:
    return recordio.write(recordio.Record(label=_label(row)) for row in rows)


def _label(row: dict[str, Any]) -> dict[str, recordio.Value]:
    return {
        key: recordio.float32(value if isinstance(value, list) else [value]) for key, value in row.items()
    }


ROW_ENCODERS: Final[dict[str, Callable[[Rows], bytes]]] = {
    encoding.JSON: _as_json,
    encoding.JSON_LINES: _as_json_lines,
    RECORDIO: _as_recordio,
    encoding.CSV: rows_as_csv,
}
"""Also the accept types that there are."""
