"""XGBoost with code."""

from pathlib import Path
from typing import Any, ClassVar

from moorage.modelhost import encoding
from moorage.modelhost.errors import InvocationError
from moorage.modelhost.families.base import Family
from moorage.modelhost.families.xgboost import boosters, matrices
from moorage.modelhost.families.xgboost.algorithm import counts_from_one
from moorage.modelhost.families.xgboost.boosters import Boosters


class ScriptMode(Family):
    distributions: ClassVar = ("xgboost",)
    fills_default_context: ClassVar = False

    def load(self, model_dir: Path) -> Any:
        """As without code; a Booster when it is one."""
        model = boosters.load(model_dir, ensemble=self.settings.inference_ensemble)
        return model.members[0] if len(model.members) == 1 else model

    def check(self, model: Any) -> None:
        if not isinstance(model, Boosters):
            super().check(model)

    def is_text(self, content_type: str | None) -> bool:
        return content_type is None or super().is_text(content_type)  # no Content-Type is JSON

    def decode(self, body: bytes | str, content_type: str | None) -> Any:
        """A DMatrix."""
        content_type = content_type or encoding.JSON
        matrices.kind(content_type)
        try:
            return matrices.read(body, content_type, one_based=counts_from_one(self.settings))
        except InvocationError:
            raise
        except Exception as error:  # of whatever kind: the body is not what it is said to be
            raise InvocationError(
                400, f"The body is not valid {encoding.media_type(content_type)}: {error}."
            ) from error

    def predict(self, data: Any, model: Any) -> Any:
        """Models for scikit-learn get the rows of a DMatrix as an array."""
        if isinstance(model, Boosters):
            return model.predict(data)
        if _is(data, "DMatrix"):
            if _is(model, "Booster"):
                return model.predict(data, validate_features=False)
            width = getattr(model, "n_features_in_", None)
            data = data if width is None else _table(data, width)
        return super().predict(data, model)


def _is(value: Any, name: str) -> bool:
    """Whether it is of this class of xgboost, without importing it."""
    return any(
        base.__name__ == name and base.__module__.startswith("xgboost.") for base in type(value).__mro__
    )


def _table(matrix: Any, width: int) -> Any:
    """The rows of a DMatrix, which leaves missing values out. 400 as InvocationError when they have more columns."""
    import numpy as np

    if matrix.num_col() > width:
        raise InvocationError(400, f"The body has {matrix.num_col()} columns, but the model takes {width}.")
    cells = matrix.get_data().tocoo()
    table = np.full((matrix.num_row(), width), np.nan, dtype=np.float32)
    table[cells.row, cells.col] = cells.data
    return table
