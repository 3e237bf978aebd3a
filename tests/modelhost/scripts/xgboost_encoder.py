"""Libsvm and CSV by the toolkit's encoder, leaf values out."""

import os

import xgboost as xgb
from sagemaker_xgboost_container import encoder as xgb_encoders


def model_fn(model_dir):
    booster = xgb.Booster()
    booster.load_model(os.path.join(model_dir, "model.json"))
    return booster


def input_fn(request_body, request_content_type):
    if request_content_type == "text/libsvm":
        return xgb_encoders.libsvm_to_dmatrix(request_body)
    if request_content_type == "text/csv":
        return xgb_encoders.csv_to_dmatrix(request_body.rstrip("\n"))
    raise ValueError(f"Content type {request_content_type} is not supported.")


def predict_fn(input_data, model):
    return model.predict(input_data, output_margin=True)


def output_fn(predictions, content_type):
    if content_type == "text/csv":
        return ",".join(f"{value:.3f}" for value in predictions)
    raise ValueError(f"Content type {content_type} is not supported.")
