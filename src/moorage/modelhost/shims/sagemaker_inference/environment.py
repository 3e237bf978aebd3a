"""What the container was asked to do."""

import os

from sagemaker_inference import content_types, parameters

base_dir = os.environ.get(parameters.BASE_PATH_ENV, "/opt/ml")
model_dir = os.environ.get("SM_MODEL_DIR", os.path.join(base_dir, "model"))  # noqa: PTH118  scripts join texts
code_dir = os.path.join(model_dir, "code")  # noqa: PTH118


class Environment:
    def __init__(self) -> None:
        program = os.environ.get(parameters.USER_PROGRAM_ENV, "inference.py")
        self.module_name = program.removesuffix(".py")
        self.default_accept = os.environ.get(parameters.DEFAULT_INVOCATIONS_ACCEPT_ENV, content_types.JSON)
        self.model_server_workers = os.environ.get(parameters.MODEL_SERVER_WORKERS_ENV)
        self.model_server_timeout = int(os.environ.get(parameters.MODEL_SERVER_TIMEOUT_ENV, "60"))
        self.inference_http_port = self.management_http_port = os.environ.get(
            parameters.BIND_TO_PORT_ENV, "8080"
        )
        self.safe_port_range = os.environ.get(parameters.SAFE_PORT_RANGE_ENV)
