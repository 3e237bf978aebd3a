"""A pipeline of preprocessing, which answers with the framework's own response."""

import json
import os

import joblib
import numpy as np
from sagemaker_containers.beta.framework import content_types, encoders, env, modules, transformer, worker  # noqa: F401


def input_fn(input_data, content_type):
    if content_type == content_types.CSV:
        return encoders.decode(input_data, content_type).reshape(1, -1)
    raise ValueError(f"{content_type} not supported by script!")


def predict_fn(input_data, model):
    return model.predict(input_data)


def output_fn(prediction, accept):
    if accept == "application/json":
        instances = [{"features": [value]} for value in prediction.tolist()]
        return worker.Response(json.dumps({"instances": instances}), mimetype=accept)
    if accept == "text/csv":
        return worker.Response(encoders.encode(prediction, accept), mimetype=accept)
    raise RuntimeError(f"{accept} accept type is not supported by this script.")


def model_fn(model_dir):
    assert np.__version__
    return joblib.load(os.path.join(model_dir, "model.joblib"))
