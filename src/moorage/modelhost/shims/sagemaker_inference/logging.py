"""The toolkit's logger."""

import logging


def get_logger() -> logging.Logger:
    return logging.getLogger("sagemaker-inference")


def configure_logger() -> None:
    get_logger().setLevel(logging.INFO)
