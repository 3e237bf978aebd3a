"""AWS's images for XGBoost. https://github.com/aws/sagemaker-xgboost-container"""

from typing import ClassVar

from moorage.modelhost.families.base import Family
from moorage.modelhost.settings import Settings


def create(settings: Settings, *, has_code: bool) -> Family:
    return XGBoost(settings)


class XGBoost(Family):
    distributions: ClassVar = ("xgboost",)
    fills_default_context: ClassVar = False
