"""A network of this script, its weights from a file, JSON by hand."""

import json
import logging
import os
import sys

import torch
from torch import nn

logger = logging.getLogger(__name__)
logger.setLevel(logging.DEBUG)
logger.addHandler(logging.StreamHandler(sys.stdout))
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1, bias=False)

    def forward(self, x):
        return self.linear(x)


def model_fn(model_dir):
    model = Net()
    with open(os.path.join(model_dir, "model.pth"), "rb") as f:
        model.load_state_dict(torch.load(f, map_location="cpu"))
    return model.to(device)


def input_fn(request_body, request_content_type):
    assert request_content_type == "application/json"
    data = json.loads(request_body)["inputs"]
    return torch.tensor(data, dtype=torch.float32, device=device)


def predict_fn(input_object, model):
    with torch.no_grad():
        return model(input_object)


def output_fn(predictions, content_type):
    assert content_type == "application/json"
    return json.dumps(predictions.cpu().numpy().tolist())
