"""A table by pandas, with names of columns and a header that may be missing."""

import os
from io import StringIO

import joblib
import pandas as pd

COLUMNS = ["a", "b"]


def input_fn(input_data, content_type):
    frame = pd.read_csv(StringIO(input_data), header=None)
    if len(frame.columns) == len(COLUMNS) + 1:
        frame = frame.iloc[:, 1:]
    frame.columns = COLUMNS
    return frame


def predict_fn(input_data, model):
    return model.predict(input_data.to_numpy()).tolist()


def output_fn(prediction, accept):
    return {"prediction": prediction}, accept


def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))
