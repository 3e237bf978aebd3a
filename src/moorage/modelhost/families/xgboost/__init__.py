"""AWS's images for XGBoost. https://github.com/aws/sagemaker-xgboost-container

Without code they serve what their own training has written ("algorithm mode"), with code the code ("script mode").
"""

from moorage.modelhost.families.base import Family
from moorage.modelhost.families.xgboost.algorithm import AlgorithmMode
from moorage.modelhost.families.xgboost.script import ScriptMode
from moorage.modelhost.settings import Settings


def create(settings: Settings, *, has_code: bool) -> Family:
    return ScriptMode(settings) if has_code else AlgorithmMode(settings)
