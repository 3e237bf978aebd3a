"""A pipeline of transformers for a task, or one of our own where transformers has none any more."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from moorage.modelhost.errors import StartupError, require
from moorage.modelhost.families.huggingface import answering, tasks, text_to_text

Pipeline = Callable[..., Any]

_OWN: Final[dict[str, Callable[..., Pipeline]]] = {
    tasks.QUESTION_ANSWERING: answering.create,
    tasks.TEXT_TO_TEXT: text_to_text.create,
    "summarization": text_to_text.create,
    "translation": text_to_text.create,
}


def load(task: str, model_dir: Path, *, gpu_id: int | None, trusts_remote_code: bool) -> Pipeline:
    """StartupError when there is no such task, or the model is not for it."""
    if task == "text-to-image":
        raise StartupError(
            "Models for text-to-image need code here: add code/inference.py with a model_fn that loads the model "
            "with diffusers, and a predict_fn."
        )
    torch = require("torch", by=f"A model for {task}", package="torch", extra="transformers")
    transformers = require(
        "transformers", by=f"A model for {task}", package="transformers", extra="transformers"
    )
    _calm(transformers)
    options = {
        "device": gpu_id if gpu_id is not None and torch.cuda.is_available() else -1,
        "trust_remote_code": trusts_remote_code,
    }
    create = _creator(task, torch, transformers)
    try:
        return create(task, model=str(model_dir), **options)
    except Exception as error:  # of whatever kind: transformers and the libraries below it raise many
        if not trusts_remote_code and "trust_remote_code" in str(error):
            advice = (
                "the model brings code of its own; read it, and set HF_TRUST_REMOTE_CODE to true to run it"
            )
        else:
            advice = (
                "pack what save_pretrained of the model and of its tokenizer or processor writes, or set HF_TASK to "
                "the task that the model is for"
            )
        said = " ".join(str(error).split())
        raise StartupError(
            f"transformers {transformers.__version__} cannot load {model_dir} for {task} ({type(error).__name__}: "
            f"{said[:300]}): {advice}.",
            detail=str(error),
        ) from error


def _creator(task: str, torch: Any, transformers: Any) -> Callable[..., Pipeline]:
    """What makes the pipeline. That of transformers goes before ours."""
    try:
        transformers.pipelines.check_task(task)
    except KeyError:
        own = _OWN.get("translation" if task.startswith("translation_") else task)
        if own is not None:
            return partial(own, torch, transformers)
        known = ", ".join(sorted({*transformers.pipelines.get_supported_tasks(), *_OWN}))
        raise StartupError(
            f"transformers {transformers.__version__} has no pipeline for {task}: set HF_TASK to one of {known}, or "
            "add code/inference.py with a model_fn."
        ) from None
    creator: Callable[..., Pipeline] = transformers.pipeline
    return creator


def _calm(transformers: Any) -> None:
    """Its warnings become lines of our log, and no progress bars are drawn there."""
    messages = transformers.utils.logging
    messages.disable_progress_bar()
    messages.disable_default_handler()
    messages.enable_propagation()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
