"""The task of a model: what its pipeline does."""

import json
from pathlib import Path
from typing import Any, Final

from moorage.modelhost.errors import StartupError

QUESTION_ANSWERING: Final = "question-answering"
TEXT_TO_TEXT: Final = "text2text-generation"

# AWS's table, and after it suffixes that AWS asks HF_TASK for.
BY_SUFFIX: Final = {
    "TapasForQuestionAnswering": "table-question-answering",
    "ForQuestionAnswering": QUESTION_ANSWERING,
    "ForTokenClassification": "token-classification",
    "ForSequenceClassification": "text-classification",
    "ForMultipleChoice": "multiple-choice",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "GPT2LMHeadModel": "text-generation",
    "ForConditionalGeneration": TEXT_TO_TEXT,
    "MTModel": TEXT_TO_TEXT,
    "EncoderDecoderModel": TEXT_TO_TEXT,
    "T5WithLMHeadModel": TEXT_TO_TEXT,
    "ForImageClassification": "image-classification",
    "ForObjectDetection": "object-detection",
    "ForSemanticSegmentation": "image-segmentation",
    "ForAudioClassification": "audio-classification",
    "ForCTC": "automatic-speech-recognition",
    "WhisperForConditionalGeneration": "automatic-speech-recognition",
}

_ADVICE: Final = "set HF_TASK in the model's Environment to the task, such as text-classification"


def of_model(model_dir: Path) -> str:
    """As its files tell. StartupError when they do not."""
    config = model_dir / "config.json"
    if config.is_file():
        return of_architectures(_architectures(config))
    if (model_dir / "model_index.json").is_file():
        return "text-to-image"
    found = ", ".join(sorted(path.name for path in model_dir.iterdir())[:10]) if model_dir.is_dir() else ""
    raise StartupError(
        f"There is no config.json in {model_dir} ({found or 'no file'}), so there is no telling the model's task: "
        "pack what save_pretrained writes at the root of the archive, or add code/inference.py with a model_fn, or "
        "set HF_MODEL_ID and HF_TASK."
    )


def of_architectures(architectures: list[str]) -> str:
    """By the longest suffix of the first architecture."""
    architecture = architectures[0] if architectures else ""
    suffixes = [suffix for suffix in BY_SUFFIX if architecture.endswith(suffix)]
    if suffixes:
        return BY_SUFFIX[max(suffixes, key=len)]
    subject = f"{architecture}, the architecture in config.json," if architecture else "config.json"
    raise StartupError(f"{subject} does not tell the model's task: {_ADVICE}.")


def _architectures(config: Path) -> list[str]:
    try:
        content: Any = json.loads(config.read_bytes())
        found = content.get("architectures") or []
        return [str(each) for each in found]
    except (ValueError, AttributeError, TypeError) as error:
        raise StartupError(
            f"{config} is not what save_pretrained writes ({error}): save the model again."
        ) from error
