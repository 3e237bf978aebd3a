"""Trains a model on points of a plane, inside of a circle or not: a booster for each of three folds.

Usage: python examples/xgboost/train.py MODEL_DIR    writes MODEL_DIR/xgboost-model-0 and two more

Without code, an image for XGBoost serves them together: CSV, libsvm or RecordIO-protobuf in, the probability of each
point to be inside out.
"""

import sys
from pathlib import Path

import numpy
import xgboost

FOLDS = 3
PARAMETERS = {"objective": "binary:logistic", "max_depth": 4, "nthread": 1, "seed": 0}


def points(count: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Two coordinates from -1 to 1, and 1 for those within 0.5 of the middle."""
    places = numpy.random.default_rng(0).uniform(-1, 1, size=(count, 2))
    return places, (numpy.hypot(places[:, 0], places[:, 1]) < 0.5).astype(int)


def train(model_dir: Path) -> None:
    model_dir.mkdir(parents=True, exist_ok=True)
    places, inside = points(3000)
    fold_of = numpy.arange(len(places)) % FOLDS
    for fold in range(FOLDS):
        kept = fold_of != fold
        booster = xgboost.train(PARAMETERS, xgboost.DMatrix(places[kept], inside[kept]), num_boost_round=40)
        (model_dir / f"xgboost-model-{fold}").write_bytes(booster.save_raw("ubj"))


if __name__ == "__main__":
    train(Path(sys.argv[1]))
