"""CSV read with NumPy from a text, whatever its type."""

import os
import pickle
from io import StringIO

import numpy as np


def model_fn(model_dir):
    with open(os.path.join(model_dir, "model.pkl"), "rb") as inp:
        return pickle.load(inp)


def input_fn(request_body, request_content_type):
    print("received request body", request_body)
    if isinstance(request_body, bytes):
        request_body = request_body.decode("utf-8")
    if request_content_type.startswith("text/csv"):
        return np.loadtxt(StringIO(request_body), delimiter=",", ndmin=2)
    raise ValueError(f"Content type {request_content_type} is not supported.")


def predict_fn(input_object, model):
    return model.predict(input_object)


def output_fn(prediction, content_type):
    return "|".join(f"{value:.1f}" for value in prediction)
