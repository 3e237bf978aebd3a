"""AWS's images for scikit-learn: numbers are float32. https://github.com/aws/sagemaker-scikit-learn-container"""

from typing import Any, ClassVar

from moorage.modelhost import encoding
from moorage.modelhost.families.base import Family
from moorage.modelhost.settings import Settings


def create(settings: Settings, *, has_code: bool) -> Family:
    return ScikitLearn(settings)


class ScikitLearn(Family):
    distributions: ClassVar = ("scikit-learn",)
    fills_default_context: ClassVar = False

    def is_text(self, content_type: str | None) -> bool:
        return content_type is None or super().is_text(content_type)  # no Content-Type is JSON

    def decode(self, body: bytes | str, content_type: str | None) -> Any:
        """JSON and CSV are float32, as far as they are numbers; NPY keeps its type."""
        data = encoding.decode(body, content_type or encoding.JSON)
        is_array = getattr(data, "dtype", None) is not None and data.dtype.kind in "biuf"
        return (
            data.astype("float32") if is_array and encoding.media_type(content_type) != encoding.NPY else data
        )
