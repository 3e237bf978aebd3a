"""The inference code of the example: the image does all but load the weights."""

from pathlib import Path

import torch
from network import Network


def model_fn(model_dir):
    network = Network()
    network.load_state_dict(torch.load(Path(model_dir) / "weights.pth", weights_only=True))
    return network
