"""The model without code: every file at the model's root is a booster, and several of them answer together."""

import json
import logging
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from moorage.modelhost.errors import StartupError, require

logger = logging.getLogger(__name__)

MAJORITY: Final = frozenset({"multi:softmax", "binary:hinge"})
"""Objectives whose predictions are classes. Several models vote on them; other predictions are averaged."""

# A file of such a name is loaded only if it begins as a model does.
_DOCUMENTS: Final = re.compile(
    r"(readme|license|licence|notice|changelog|makefile|dockerfile)(\..*)?"
    r"|.*\.(cfg|csv|html|ini|ipynb|jpg|json|jsonl|log|md|pdf|png|py|rst|sh|svg|toml|tsv|txt|yaml|yml)",
    re.IGNORECASE,
)
# A pickle; the old binary format; UBJSON; JSON.
_MODEL_BEGINNING: Final = re.compile(rb'\x80|binf|\{L\x00|\s*\{\s*"(learner|version)"\s*:')
_BEGINNING_BYTES: Final = 100
_LONGEST_REASON: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Boosters:
    """`objective` and `class_count` are those of the first; `class_count` is 0 unless there are several classes."""

    members: tuple[Any, ...]
    objective: str
    class_count: int
    pickled: bool
    """Whether the first was a pickle: AWS compares the number of columns with that of such a model only."""

    @property
    def feature_count(self) -> int:
        return int(self.members[0].num_features())

    def predict(self, matrix: Any) -> Any:
        """An array of what they say together."""
        import numpy as np

        results = [_predict(booster, matrix) for booster in self.members]
        if len(results) == 1:
            return results[0]
        if self.objective in MAJORITY:
            from scipy import stats  # xgboost needs it too

            return stats.mode(np.stack(results), axis=0, keepdims=False).mode
        return np.mean(results, axis=0)


def load(model_dir: Path, *, ensemble: bool) -> Boosters:
    """All models at the root of `model_dir`, or the first by name. StartupError when one cannot be loaded."""
    xgboost = require("xgboost", by="This model", package="xgboost")
    paths = _find(model_dir)
    loaded = [_load(xgboost, path) for path in (paths if ensemble else paths[:1])]
    boosters = tuple(booster for booster, _ in loaded)
    for booster in boosters:
        booster.set_param({"nthread": 1})
    learner = json.loads(boosters[0].save_config())["learner"]
    objective = learner["objective"]["name"]
    names = ", ".join(path.name for path in paths[: len(boosters)])
    logger.info("serving %s, objective %s", names, objective)
    return Boosters(
        members=boosters,
        objective=objective,
        class_count=int(learner["learner_model_param"].get("num_class", 0)),
        pickled=loaded[0][1],
    )


def _find(model_dir: Path) -> list[Path]:
    files = sorted(path for path in model_dir.iterdir() if path.is_file()) if model_dir.is_dir() else []
    models = [path for path in files if _may_be_model(path)]
    if not models:
        found = f"only {', '.join(path.name for path in files[:10])}" if files else "no file"
        raise StartupError(
            f"There is no model at the root of {model_dir} ({found}): put there what Booster.save_model has written, "
            "as model.ubj, model.json or xgboost-model, or add code/inference.py with a model_fn."
        )
    return models


def _may_be_model(path: Path) -> bool:
    if path.name.startswith("."):
        logger.warning("%s is passed over, since its name begins with a dot", path.name)
        return False
    if _DOCUMENTS.fullmatch(path.name):
        with path.open("rb") as file:
            if not _MODEL_BEGINNING.match(file.read(_BEGINNING_BYTES)):
                logger.warning(
                    "%s is passed over: by its name it is no model, and it does not begin as one", path.name
                )
                return False
    return True


def _load(xgboost: Any, path: Path) -> tuple[Any, bool]:
    """The booster, and whether it was a pickle."""
    try:
        with path.open("rb") as file:
            pickled = pickle.load(file)
    except Exception as error:  # a pickle may raise anything
        return _load_saved(xgboost, path, error), False
    # Of the classes for scikit-learn.
    booster = pickled.get_booster() if hasattr(pickled, "get_booster") else pickled
    if not isinstance(booster, xgboost.Booster):
        raise StartupError(
            f"{path.name} is a pickled {type(pickled).__name__}, not a Booster: save the model with "
            "Booster.save_model, or add code/inference.py with a model_fn."
        )
    return booster, True


def _load_saved(xgboost: Any, path: Path, pickle_error: Exception) -> Any:
    booster = xgboost.Booster()
    try:
        # As bytes, of which the format is seen; of a file it is taken from the name.
        booster.load_model(bytearray(path.read_bytes()))
    except (xgboost.core.XGBoostError, ValueError, TypeError) as error:
        detail = f"Pickle load error={pickle_error}\nXGB load model error={error}"
        raise StartupError(
            f"Model {path.name} cannot be loaded: Pickle load error={_short(pickle_error)}, XGB load model "
            f"error={_short(error)}: every file at the model's root must be a model; move others into a directory.",
            detail=detail,
        ) from error
    return booster


def _short(error: Exception) -> str:
    """Without the stack of the library in C++."""
    return " ".join(str(error).partition("Stack trace:")[0].split())[:_LONGEST_REASON]


def _predict(booster: Any, matrix: Any) -> Any:
    # Training with early stopping left it in pickles of old versions.
    best = int(getattr(booster, "best_ntree_limit", 0) or 0)
    kept = {"iteration_range": (0, best)} if best else {}
    return booster.predict(matrix, validate_features=False, **kept)
