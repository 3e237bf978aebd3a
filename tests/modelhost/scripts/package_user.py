"""A package of its own and a library beside it."""

from helpers.text import shout
from vendored import TIMES


def model_fn(model_dir):
    return shout


def predict_fn(data, model):
    return [model(each) * TIMES for each in data]
