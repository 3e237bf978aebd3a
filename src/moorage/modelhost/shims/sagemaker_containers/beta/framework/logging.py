"""The toolkit's logger."""

import logging
from typing import Any


def get_logger() -> logging.Logger:
    return logging.getLogger("sagemaker-containers")


def configure_logger(level: Any, log_format: str | None = None) -> None:
    get_logger().setLevel(level)
