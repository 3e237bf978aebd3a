"""One request from body to response, by functions or their defaults."""

from collections.abc import Callable
from typing import Any

from sagemaker_containers.beta.framework import content_types, encoders, errors, worker


def default_model_fn(model_dir: str) -> Any:
    raise NotImplementedError("Please provide a model_fn implementation.")


def default_input_fn(input_data: Any, content_type: str) -> Any:
    """Numbers as float32."""
    import numpy as np

    array = encoders.decode(input_data, content_type)
    return array.astype(np.float32) if content_type in content_types.UTF8_TYPES else array


def default_predict_fn(data: Any, model: Any) -> Any:
    raise NotImplementedError("Please provide a predict_fn implementation.")


def default_output_fn(prediction: Any, accept: str) -> worker.Response:
    return worker.Response(response=encoders.encode(prediction, accept), mimetype=accept)


class Transformer:
    def __init__(
        self,
        model_fn: Callable[..., Any] | None = None,
        input_fn: Callable[..., Any] | None = None,
        predict_fn: Callable[..., Any] | None = None,
        output_fn: Callable[..., Any] | None = None,
        transform_fn: Callable[..., Any] | None = None,
        error_class: type[Exception] = errors.ClientError,
    ) -> None:
        self._model_fn = model_fn or default_model_fn
        self._input_fn = input_fn or default_input_fn
        self._predict_fn = predict_fn or default_predict_fn
        self._output_fn = output_fn or default_output_fn
        self._transform_fn = transform_fn
        self._error_class = error_class
        self._model: Any = None

    def initialize(self) -> None:
        from sagemaker_containers.beta.framework import env

        self._model = self._model_fn(env.ServingEnv().model_dir)

    def transform(self, content: Any = None, content_type: Any = None, accept: Any = None) -> Any:
        if self._transform_fn is not None:
            return self._transform_fn(self._model, content, content_type, accept)
        prediction = self._predict_fn(self._input_fn(content, content_type), self._model)
        return self._output_fn(prediction, accept)
