"""As in sagemaker-containers, for scripts that import it."""

import importlib
from typing import Any

_MODULES = (
    *(
        "content_types",
        "encoders",
        "entry_point",
        "env",
        "errors",
        "files",
        "functions",
        "logging",
        "mapping",
    ),
    *("modules", "mpi", "params", "process", "runner", "server", "trainer", "transformer", "worker"),
)


def __getattr__(name: str) -> Any:
    """Its modules are imported when they are asked for."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "training_env":
        from sagemaker_containers.beta.framework import env

        return env.training_env
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
