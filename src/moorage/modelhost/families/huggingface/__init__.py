"""AWS's images for Hugging Face: a pipeline of transformers without code, plain JSON with it.

https://github.com/aws/sagemaker-huggingface-inference-toolkit
"""

import json
from pathlib import Path
from typing import Any, ClassVar

from moorage.modelhost import encoding
from moorage.modelhost.errors import InvocationError, StartupError
from moorage.modelhost.families.base import Answer, ErrorReply, Family, said_by
from moorage.modelhost.families.huggingface import formats, hub, pipelines
from moorage.modelhost.settings import Settings

_INDENT = 2


def create(settings: Settings, *, has_code: bool) -> Family:
    return HuggingFace(settings)


class HuggingFace(Family):
    distributions: ClassVar = ("torch", "transformers")

    @property
    def accept(self) -> str:
        """SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT is not read by these images."""
        return encoding.JSON

    def load(self, model_dir: Path) -> Any:
        wanted = self.settings.hugging_face
        if wanted.model_id:
            model_dir = hub.download(wanted, self.settings.environments_dir)
        return pipelines.load(model_dir, wanted)

    def check(self, model: Any) -> None:
        if not callable(model):
            super().check(model)

    def decode(self, body: bytes | str, content_type: str | None) -> Any:
        return formats.decode(body, content_type or encoding.JSON)

    def predict(self, data: Any, model: Any) -> Any:
        """`inputs` of the request to the pipeline, with its `parameters`."""
        if not isinstance(data, dict):
            raise InvocationError(
                400,
                f'The body holds a {type(data).__name__}: send an object such as {{"inputs": "some text"}}.',
            )
        request = dict(data)
        inputs = request.pop("inputs", request)
        parameters = request.pop("parameters", None) or {}
        return model(inputs, **parameters)

    def encode(self, prediction: Any, accept: str) -> Answer:
        media = formats.choose(accept)
        return formats.encode(prediction, media), media

    def explain(self, error: BaseException) -> ErrorReply:
        """All errors are 400, in the words of the multi-model server. A script's own status is in the text only."""
        if isinstance(error, StartupError):
            return super().explain(error)
        status = error.status if isinstance(error, InvocationError) else 400
        said = error.message if isinstance(error, InvocationError) else said_by(error)
        document = {"code": status, "type": "InternalServerException", "message": said}
        return ErrorReply(status, _escaped(json.dumps(document, indent=_INDENT)) + "\n", encoding.JSON)


def _escaped(text: str) -> str:
    """As the multi-model server writes JSON, so that no browser takes it for HTML."""
    return "".join(f"\\u{ord(each):04x}" if each in "<>&='" else each for each in text)
