"""Inputs popped from the request, embeddings out."""

import json


def model_fn(model_dir):
    return {"boats": [1.0, 2.0]}


def predict_fn(data, model):
    sentences = data.pop("inputs", data)
    return {"vectors": [model.get(each, [0.0, 0.0]) for each in sentences]}


def output_fn(prediction, accept):
    return json.dumps(prediction)
