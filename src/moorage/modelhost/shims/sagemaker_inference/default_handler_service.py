"""The entry point of a model server's handler."""

from typing import Any

from sagemaker_inference.transformer import Transformer


class DefaultHandlerService:
    def __init__(self, transformer: Transformer | None = None) -> None:
        self._service = transformer or Transformer()

    def handle(self, data: Any, context: Any) -> Any:
        return self._service.transform(data, context)

    def initialize(self, context: Any) -> None:
        self._service.validate_and_initialize(context.system_properties["model_dir"], context)
