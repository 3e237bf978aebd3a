"""Imports a script."""

import importlib
from types import ModuleType
from typing import Any

DEFAULT_MODULE_NAME = "default_user_module_name"


def import_module(uri: str, name: str = DEFAULT_MODULE_NAME, cache: Any = None) -> ModuleType:
    """What is at the URI was put on the path by the container."""
    return importlib.import_module(name.removesuffix(".py"))


def __getattr__(name: str) -> Any:
    from moorage.modelhost import training_only

    return training_only.attribute(__name__, name)
