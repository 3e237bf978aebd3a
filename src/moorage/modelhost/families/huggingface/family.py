"""What the images for Hugging Face do where the model's code does not say."""

import json
import os
from pathlib import Path
from typing import Any, ClassVar, Final

from moorage.modelhost import encoding
from moorage.modelhost.errors import InvocationError, StartupError
from moorage.modelhost.families.base import Answer, ErrorReply, Family, said_by
from moorage.modelhost.families.huggingface import formats, hub, pipelines, tasks

_WITHOUT_CSV: Final = ("zero-shot-classification", "table-question-answering")

_ESCAPED: Final = {ord(each): f"\\u{ord(each):04x}" for each in "<>&='\u2028\u2029"}


class HuggingFace(Family):
    distributions: ClassVar = ("torch", "transformers")

    @property
    def accept(self) -> str:
        """JSON: these images do not read SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT."""
        return encoding.JSON

    def model_dir(self) -> Path:
        """That of the archive, or of what HF_MODEL_ID names."""
        hub.keep_below(self.settings.environments_dir, os.environ)
        return hub.download(self.settings, os.environ) if self.settings.hf_model_id else super().model_dir()

    def load(self, model_dir: Path) -> Any:
        task = self.settings.hf_task or tasks.of_model(model_dir)
        return pipelines.load(
            task,
            model_dir,
            gpu_id=self.gpu_id,
            trusts_remote_code=self.settings.hf_trust_remote_code,
        )

    def check(self, model: Any) -> None:
        if not callable(model):
            raise StartupError(
                f"model_fn gives a {type(model).__name__}, which cannot be called: return a pipeline, or define "
                f"predict_fn(data, model) in {self.settings.program}."
            )

    def decode(self, body: bytes | str, content_type: str | None) -> Any:
        if encoding.media_type(content_type) == encoding.CSV and self.settings.hf_task in _WITHOUT_CSV:
            raise InvocationError(400, f"{self.settings.hf_task} does not support {encoding.CSV}: send JSON.")
        return formats.decode(body, content_type)

    def predict(self, data: Any, model: Any) -> Any:
        if not isinstance(data, dict):
            raise InvocationError(
                400,
                f'The input is a {type(data).__name__}, not an object: send one such as {{"inputs": ...}}.',
            )
        inputs = data.get("inputs", {name: each for name, each in data.items() if name != "parameters"})
        inputs = list(inputs) if isinstance(inputs, tuple) else inputs
        return model(inputs, **(data.get("parameters") or {}))

    def as_rows(self, data: Any, model: Any) -> Any:
        """Texts of several invocations may be one list. The messages of a chat, which are a list too, may not; no
        batch takes a tuple."""
        inputs = data.get("inputs") if isinstance(data, dict) else None
        if isinstance(inputs, list) and not all(isinstance(each, str) for each in inputs):
            return {**data, "inputs": tuple(inputs)}
        return data

    def encode(self, prediction: Any, accept: str) -> Answer:
        media = formats.choose(accept)
        return formats.encode(prediction, media), media

    def explain(self, error: BaseException) -> ErrorReply:
        """400, whatever it was, in the form of the images' model server."""
        status = error.status if isinstance(error, InvocationError) else 400
        message = json.dumps(said_by(error), ensure_ascii=False).translate(_ESCAPED)
        return ErrorReply(
            status,
            f'{{\n  "code": {status},\n  "type": "InternalServerException",\n  "message": {message}\n}}\n',
            encoding.JSON,
        )
