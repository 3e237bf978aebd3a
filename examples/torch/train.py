"""Trains a network on points of a plane, inside of a circle or not.

Usage: python examples/torch/train.py MODEL_DIR

It writes MODEL_DIR/weights.pth and MODEL_DIR/code, which an image for PyTorch serves: points in as JSON, CSV or NPY,
the probability of each to be inside out.
"""

import shutil
import sys
from pathlib import Path

import torch

CODE = Path(__file__).parent / "code"
sys.path.append(str(CODE))

from network import Network  # noqa: E402

STEPS = 300


def points(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two coordinates from -1 to 1, and 1 for those within 0.5 of the middle."""
    places = torch.rand(count, 2) * 2 - 1
    return places, (places.norm(dim=1) < 0.5).float()


def train(model_dir: Path) -> Network:
    torch.manual_seed(0)
    places, inside = points(1000)
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy(network(places), inside).backward()
        optimizer.step()
    model_dir.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), model_dir / "weights.pth")
    shutil.copytree(
        CODE, model_dir / "code", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    return network


if __name__ == "__main__":
    train(Path(sys.argv[1]))
