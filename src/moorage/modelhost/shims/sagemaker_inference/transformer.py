"""One request from body to body, by a handler's defaults."""

from typing import Any

from sagemaker_inference.default_inference_handler import DefaultInferenceHandler


class Transformer:
    def __init__(self, default_inference_handler: Any = None) -> None:
        self._handler = default_inference_handler or DefaultInferenceHandler()
        self._model: Any = None
        self._initialized = False

    def validate_and_initialize(self, model_dir: str = "/opt/ml/model", context: Any = None) -> None:
        if not self._initialized:
            self._model = self._handler.default_model_fn(model_dir)
            self._initialized = True

    def transform(self, data: Any, context: Any) -> list[Any]:
        """`data` has one request, as the model server gives it."""
        self.validate_and_initialize(context.system_properties["model_dir"], context)
        properties = context.request_processor[0].get_request_properties()
        body = data[0].get("body")
        content_type = properties.get("Content-Type") or "application/json"
        accept = properties.get("Accept") or "application/json"
        if content_type in ("application/json", "text/csv") and isinstance(body, (bytes, bytearray)):
            body = body.decode()
        read = self._handler.default_input_fn(body, content_type)
        prediction = self._handler.default_predict_fn(read, self._model)
        reply, reply_type = self._handler.default_output_fn(prediction, accept)
        context.set_response_content_type(0, reply_type)
        return [reply]
