"""AWS's images for Hugging Face. https://github.com/aws/sagemaker-huggingface-inference-toolkit"""

from typing import ClassVar

from moorage.modelhost.families.base import Family
from moorage.modelhost.settings import Settings


def create(settings: Settings, *, has_code: bool) -> Family:
    return HuggingFace(settings)


class HuggingFace(Family):
    distributions: ClassVar = ("torch", "transformers")
