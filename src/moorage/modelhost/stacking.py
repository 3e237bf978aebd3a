"""Several inputs as one, and the prediction of that one as one for each of them.

Only inputs that are alike are stacked (`likeness`): what a model makes of several is then what it makes of each. Rows
are counted along the first dimension.
"""

import sys
from collections.abc import Hashable, Sequence
from itertools import accumulate, pairwise
from typing import Any


def likeness(data: Any) -> Hashable | None:
    """Equal for inputs that can be stacked. None for what cannot be."""
    if isinstance(data, list):
        return "list" if data else None
    if isinstance(data, dict):
        members = [(name, likeness(value)) for name, value in data.items()]
        if (
            not members
            or None in [each for _, each in members]
            or len({len(each) for each in data.values()}) > 1
        ):
            return None
        return ("dict", *members)
    if _is(data, "pandas", "DataFrame"):
        return ("frame", *map(str, data.columns), *map(str, data.dtypes)) if len(data) else None
    if (_is(data, "numpy", "ndarray") or _is(data, "torch", "Tensor")) and data.ndim > 1 and len(data):
        return (type(data).__name__, str(data.dtype), str(getattr(data, "device", "")), tuple(data.shape[1:]))
    return None


def rows(data: Any) -> int:
    """How many rows there are in what has a likeness."""
    return len(next(iter(data.values()))) if isinstance(data, dict) else len(data)


def stack(inputs: Sequence[Any]) -> Any:
    """One input with the rows of all, which have the same likeness."""
    first = inputs[0]
    if isinstance(first, list):
        return [row for each in inputs for row in each]
    if isinstance(first, dict):
        return {name: stack([each[name] for each in inputs]) for name in first}
    if _is(first, "pandas", "DataFrame"):
        return sys.modules["pandas"].concat(inputs, ignore_index=True)
    if _is(first, "torch", "Tensor"):
        return sys.modules["torch"].cat(tuple(inputs))
    return sys.modules["numpy"].concatenate(inputs)


def split(prediction: Any, counts: Sequence[int]) -> list[Any] | None:
    """The predictions for inputs of so many rows each. None when it has not a row for each of theirs."""
    if isinstance(prediction, dict):
        members = {name: split(value, counts) for name, value in prediction.items()}
        if not members or None in members.values():
            return None
        return [
            {name: parts[number] for name, parts in members.items() if parts is not None}
            for number in range(len(counts))
        ]
    ends = list(accumulate(counts, initial=0))
    if not _has_rows(prediction) or len(prediction) != ends[-1]:
        return None
    cut = prediction.iloc if hasattr(prediction, "iloc") else prediction
    return [cut[begin:end] for begin, end in pairwise(ends)]


def _has_rows(prediction: Any) -> bool:
    if isinstance(prediction, (list, tuple)):
        return True
    return getattr(prediction, "ndim", 0) > 0  # arrays, tensors, frames and series


def _is(data: Any, package: str, name: str) -> bool:
    """Without importing the package: what is not imported has made nothing."""
    kind = getattr(sys.modules.get(package), name, None)
    return kind is not None and isinstance(data, kind)
