"""The smallest model there is: it has no artifact, and turns text around."""

import json


def model_fn(model_dir):
    return None


def predict_fn(data, model):
    return {"text": data["text"][::-1]}


def output_fn(prediction, accept):
    return json.dumps(prediction), "application/json"
