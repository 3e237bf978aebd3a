"""What scripts import for their training part, and never call when they serve."""

from collections.abc import Callable
from typing import Any


def attribute(module: str, name: str) -> Callable[..., Any]:
    """For a module's `__getattr__`: a function of that name, which says that it is for training."""
    if name.startswith("__"):
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    def only_for_training(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"{module}.{name} is for training, and this container serves models")

    only_for_training.__name__ = name
    return only_for_training
