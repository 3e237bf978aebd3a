"""The inference code of the demo: what a SageMaker user would put into model.tar.gz beside the artifact."""

import json
from pathlib import Path

import joblib
import numpy

SPECIES = ("setosa", "versicolor", "virginica")


def model_fn(model_dir):
    """Load the artifact; runs once in every worker, before the container is healthy."""
    return joblib.load(Path(model_dir) / "model.joblib")


def predict_fn(data, model):
    """Rows of four measurements in centimetres → the probability of each species."""
    rows = data["instances"] if isinstance(data, dict) else data
    return model.predict_proba(numpy.atleast_2d(numpy.asarray(rows, dtype=float)))


def output_fn(probabilities, accept):
    """CSV: the species of each row. JSON: species and probability."""
    best = probabilities.argmax(axis=1)
    if accept == "text/csv":
        return "\n".join(SPECIES[index] for index in best), "text/csv"
    predictions = [
        {"species": SPECIES[index], "probability": round(float(row[index]), 3)}
        for index, row in zip(best, probabilities, strict=True)
    ]
    return json.dumps({"predictions": predictions}), "application/json"
