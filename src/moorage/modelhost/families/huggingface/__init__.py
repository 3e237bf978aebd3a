"""AWS's images for Hugging Face. https://github.com/aws/sagemaker-huggingface-inference-toolkit

Without code a pipeline of transformers serves the model, which is in the archive or comes from a hub.
"""

from moorage.modelhost.families.base import Family
from moorage.modelhost.families.huggingface.family import HuggingFace
from moorage.modelhost.settings import Settings


def create(settings: Settings, *, has_code: bool) -> Family:
    return HuggingFace(settings)
