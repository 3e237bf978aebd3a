"""Settings from the environment, and a lookup table beside the model."""

import csv
import os

from sagemaker_inference import environment

LABELS = os.path.join(environment.model_dir, "labels.csv")


def model_fn(model_dir):
    with open(os.path.join(model_dir, "labels.csv")) as file:
        return dict(csv.reader(file))


def predict_fn(data, model):
    prefix = os.environ.get("PREFIX", "")
    return [prefix + model[str(int(value))] for value in data.ravel()]
