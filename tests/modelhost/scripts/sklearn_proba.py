"""Probabilities instead of classes, in JSON, with an extra parameter of its own."""

import json
import logging
import os

import joblib

logging.basicConfig(level=logging.INFO)
logger = logging.getLogger(__name__)


def model_fn(model_dir, name="model.joblib"):
    logger.info("loading %s", name)
    return joblib.load(os.path.join(model_dir, name))


def predict_fn(input_data, model):
    return {"sum": float(model.predict(input_data).sum()), "dtype": str(input_data.dtype)}


def output_fn(prediction, accept):
    return json.dumps(prediction), accept
