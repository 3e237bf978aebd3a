"""A dictionary of model and device, and the toolkit's encoder for the reply."""

import numpy as np
import torch
from sagemaker_inference import content_types, encoder


def model_fn(model_dir):
    return {"model": torch.nn.Softmax(dim=-1), "device": torch.device("cpu")}


def predict_fn(data, model):
    with torch.no_grad():
        return model["model"](data.to(model["device"])).numpy()


def output_fn(prediction, accept):
    return encoder.encode(np.round(prediction, 2), content_types.JSON), content_types.JSON
