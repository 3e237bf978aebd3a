"""The pipeline that answers for a model without code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from moorage.modelhost.errors import StartupError, require
from moorage.modelhost.families.huggingface import departed, tasks
from moorage.modelhost.settings import HuggingFaceSettings

_OF_AUDIO: Final = ("automatic-speech-recognition", "audio-classification", "zero-shot-audio-classification")
_OF_IMAGES: Final = (
    "image-classification", "image-segmentation", "object-detection", "zero-shot-image-classification",
    "zero-shot-object-detection", "depth-estimation", "image-feature-extraction", "mask-generation",
)  # fmt: skip
_WITH_TEXT: Final = (
    "zero-shot-image-classification",
    "zero-shot-object-detection",
    "zero-shot-audio-classification",
)


def load(model_dir: Path, wanted: HuggingFaceSettings) -> Callable[..., Any]:
    """StartupError when there is no such task, or the model cannot be loaded."""
    transformers = require("transformers", by="This model", package="transformers", extra="transformers")
    torch = require("torch", by="This model", package="torch", extra="torch")
    transformers.utils.logging.disable_progress_bar()
    task = wanted.task or tasks.infer(model_dir)
    name = transformers.pipelines.TASK_ALIASES.get(task, task)
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    if name not in transformers.pipelines.SUPPORTED_TASKS:
        replacement = departed.pipeline(name, str(model_dir), device)
        if replacement is not None:
            return replacement
        known = ", ".join(sorted(transformers.pipelines.SUPPORTED_TASKS))
        raise StartupError(
            f"HF_TASK is {task}, for which transformers {transformers.__version__} has no pipeline: name another "
            f"transformers in code/requirements.txt, or set HF_TASK to one of {known}."
        )
    made: Callable[..., Any] = transformers.pipeline(
        name,
        model=str(model_dir),
        device=device,
        trust_remote_code=wanted.trusts_remote_code,
        **_processors(name, str(model_dir)),
    )
    return made


def _processors(task: str, model_dir: str) -> dict[str, str]:
    if task in _OF_AUDIO:
        found = {"feature_extractor": model_dir}
        if task == "automatic-speech-recognition":
            found["tokenizer"] = model_dir
    elif task in _OF_IMAGES:
        found = {"image_processor": model_dir}
    else:
        found = {"tokenizer": model_dir}
    if task in _WITH_TEXT:
        found["tokenizer"] = model_dir
    return found
