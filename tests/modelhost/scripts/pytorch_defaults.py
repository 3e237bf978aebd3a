"""Only the model; the image does the rest."""

import os

import torch


def model_fn(model_dir):
    weights = torch.load(os.path.join(model_dir, "model.pth"))
    model = torch.nn.Linear(2, 1, bias=False)
    model.weight.data = weights["linear.weight"]
    return model
