"""The network, for those who train it and those who serve it."""

import torch


class Network(torch.nn.Module):
    """From two coordinates to how surely the point is inside of the circle, from 0 to 1."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(2, width),
            torch.nn.Tanh(),
            torch.nn.Linear(width, 1),
            torch.nn.Sigmoid(),
        )

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return self.layers(points).squeeze(-1)
