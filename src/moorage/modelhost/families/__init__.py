"""What each kind of container does where the model's own code does not say: one module for each family of images.

The name of the image chooses the family. Its rules are those of AWS; where ours are kinder, docs/deviations.md says
so.
"""

import importlib

from moorage.modelhost.families.base import Family
from moorage.modelhost.settings import Settings


def create(settings: Settings, *, has_code: bool) -> Family:
    """The family of `settings.family`. `has_code`: whether the model brings a program."""
    name = "base" if settings.family == "generic" else settings.family.replace("-", "_")
    module = importlib.import_module(f"{__name__}.{name}")
    family: Family = module.create(settings, has_code=has_code)
    return family
