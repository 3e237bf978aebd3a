"""What the container was asked to do."""

import os
from typing import Any

from sagemaker_containers.beta.framework import content_types

base_dir = os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml")
model_dir = os.environ.get("SM_MODEL_DIR", os.path.join(base_dir, "model"))  # noqa: PTH118  scripts join texts
code_dir = os.path.join(model_dir, "code")  # noqa: PTH118


class ServingEnv:
    def __init__(self) -> None:
        program = os.environ.get("SAGEMAKER_PROGRAM", "inference.py")
        self.module_name = program.removesuffix(".py")
        self.module_dir = os.environ.get("SAGEMAKER_SUBMIT_DIRECTORY", code_dir)
        self.model_dir = model_dir
        self.default_accept = os.environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", content_types.JSON)
        self.http_port = os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080")
        self.safe_port_range = os.environ.get("SAGEMAKER_SAFE_PORT_RANGE")
        self.model_server_workers = int(os.environ.get("SAGEMAKER_MODEL_SERVER_WORKERS", os.cpu_count() or 1))
        self.model_server_timeout = int(os.environ.get("SAGEMAKER_MODEL_SERVER_TIMEOUT", "60"))
        self.framework_module = os.environ.get("SAGEMAKER_FRAMEWORK_MODULE")


def __getattr__(name: str) -> Any:
    from moorage.modelhost import training_only

    return training_only.attribute(__name__, name)
