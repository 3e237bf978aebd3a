"""Loads the weights; all else is what the container does by itself: tensors in, tensors out."""

from pathlib import Path

from net import Net

import torch


def model_fn(model_dir: str) -> Net:
    net = Net()
    net.load_state_dict(torch.load(Path(model_dir, "model.pth")))
    return net
