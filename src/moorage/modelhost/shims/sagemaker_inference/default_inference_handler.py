"""The defaults that scripts subclass."""

from typing import Any

from sagemaker_inference import content_types, decoder, encoder, errors, utils


class DefaultInferenceHandler:
    def default_model_fn(self, model_dir: str, context: Any = None) -> Any:
        raise NotImplementedError("Please provide a model_fn implementation.")

    def default_input_fn(self, input_data: Any, content_type: str, context: Any = None) -> Any:
        return decoder.decode(input_data, content_type)

    def default_predict_fn(self, data: Any, model: Any, context: Any = None) -> Any:
        raise NotImplementedError("Please provide a predict_fn implementation.")

    def default_output_fn(self, prediction: Any, accept: str, context: Any = None) -> tuple[Any, str]:
        """The first type of the Accept header that can be written."""
        for content_type in utils.parse_accept(accept):
            if content_type in encoder.SUPPORTED_CONTENT_TYPES:
                return encoder.encode(prediction, content_type), content_type
            if content_type == content_types.ANY:
                return encoder.encode(prediction, content_types.JSON), content_types.JSON
        raise errors.UnsupportedFormatError(accept)
