"""The image catalogue: which command line stands for a container image.

Where nothing can run an image itself, an image name is only a word for "this kind of container". The user's
own table comes first; then the images of AWS whose containers follow the `inference.py` contract, which the
built-in model host follows too. What needs a program of its own (TGI, LMI, vLLM, Triton, TensorFlow Serving)
is not guessed: the user is told how to map it.

Repository names: `image_uri_config/*.json` of the SageMaker Python SDK.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

MODEL_HOST = ("{python}", "-m", "moorage.modelhost", "serve")
OWN_REPOSITORY = "moorage/modelhost"

MODEL_HOST_REPOSITORIES: Final[Mapping[str, str]] = {
    "sagemaker-scikit-learn": "scikit-learn",
    "sagemaker-xgboost": "xgboost",
    "xgboost": "xgboost",  # 1.x of the first-party algorithm; from 0.90-1 on it is sagemaker-xgboost
    "pytorch-inference": "pytorch",
    "pytorch-inference-graviton": "pytorch",
    "pytorch-training": "pytorch",  # the training images are hosted too: `Estimator.deploy` of an old SDK does
    "sagemaker-pytorch": "pytorch",
    "huggingface-pytorch-inference": "huggingface",
    "huggingface-pytorch-training": "huggingface",
    "huggingface-tensorflow-inference": "huggingface",
    "sagemaker-base-python": "generic",
}
"""The families of the model host, by the repositories of AWS whose containers do the same."""

_PRIVATE_REGISTRY = re.compile(
    r"\d{12}\.dkr[.-]ecr(-fips)?\.[a-z0-9-]+"
    r"\.(amazonaws\.com(\.cn)?|amazonaws\.eu|on\.aws|c2s\.ic\.gov|sc2s\.sgov\.gov)/(?P<repository>.+)"
)
_PUBLIC_REGISTRY = re.compile(r"public\.ecr\.aws/(deep-learning-containers|sagemaker)/(?P<repository>.+)")


class UnknownImage(Exception):
    """Nothing tells what to run for an image; the text says how to tell it."""

    def __init__(self, image: str) -> None:
        super().__init__(
            f"no command line is known for the image {image!r}. Name one in the [images] table of moorage.toml, "
            f'for example: "{_without_tag(image)}*" = "{{python}} /path/to/serve.py"'
        )
        self.image = image


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedImage:
    """What to run for an image. `pattern` is the user's entry that matched, None for the built-in catalogue."""

    argv: tuple[str, ...]
    pattern: str | None = None
    family: str = ""
    """Of the built-in model host, which a pattern does not name."""
    version: str = ""
    """The tag, which begins with the framework's version."""

    @property
    def is_model_host(self) -> bool:
        return self.pattern is None


def resolve(image: str, settings_images: Mapping[str, tuple[str, ...]]) -> ResolvedImage:
    """The command line that stands for `image`: the user's longest matching pattern, else a built-in.

    Raises:
        UnknownImage: neither knows the image.
    """
    pattern = _best_pattern(image, settings_images)
    if pattern is not None:
        return ResolvedImage(argv=_fill(settings_images[pattern]), pattern=pattern)
    repository = _aws_repository(image)
    if repository in MODEL_HOST_REPOSITORIES:
        family = MODEL_HOST_REPOSITORIES[repository]
        return ResolvedImage(argv=_fill(MODEL_HOST), family=family, version=_tag(image))
    if _without_tag(image) == OWN_REPOSITORY:
        return ResolvedImage(argv=_fill(MODEL_HOST), family="generic")
    raise UnknownImage(image)


def _best_pattern(image: str, patterns: Mapping[str, object]) -> str | None:
    if image in patterns:
        return image
    matching = [pattern for pattern in patterns if fnmatchcase(image, pattern)]
    return max(matching, key=lambda pattern: (len(pattern), pattern), default=None)


def _aws_repository(image: str) -> str:
    """Empty for an image of another registry."""
    match = _PRIVATE_REGISTRY.fullmatch(image) or _PUBLIC_REGISTRY.fullmatch(image)
    return _without_tag(match["repository"]) if match else ""


def _without_tag(image: str) -> str:
    """`host:5000/name:tag@sha256:…` → `host:5000/name`."""
    name = image.partition("@")[0]
    directory, slash, last = name.rpartition("/")
    return directory + slash + last.partition(":")[0]


def _tag(image: str) -> str:
    """`host:5000/name:tag@sha256:…` → `tag`, empty if there is none."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[2]


def _fill(argv: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(argument.replace("{python}", sys.executable) for argument in argv)
