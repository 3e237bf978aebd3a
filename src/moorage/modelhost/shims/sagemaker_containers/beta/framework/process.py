"""For training."""

from typing import Any

from moorage.modelhost import training_only


def __getattr__(name: str) -> Any:
    return training_only.attribute(__name__, name)
