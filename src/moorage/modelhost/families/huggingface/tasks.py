"""Which task a model is for, where HF_TASK does not say."""

import json
from pathlib import Path
from typing import Final

from moorage.modelhost.errors import StartupError

_BY_ARCHITECTURE: Final = {
    "TapasForQuestionAnswering": "table-question-answering",
    "ForQuestionAnswering": "question-answering",
    "ForTokenClassification": "token-classification",
    "ForSequenceClassification": "text-classification",
    "ForMultipleChoice": "multiple-choice",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "GPT2LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "MTModel": "text2text-generation",
    "EncoderDecoderModel": "text2text-generation",
    "T5WithLMHeadModel": "text2text-generation",
    "ForImageClassification": "image-classification",
    "ForObjectDetection": "object-detection",
    "ForCTC": "automatic-speech-recognition",
    "ForAudioClassification": "audio-classification",
}
"""By what an architecture's name ends in; the longest counts."""


def infer(model_dir: Path) -> str:
    """By the first architecture of `config.json`. StartupError that names the variable to set."""
    try:
        config = json.loads((model_dir / "config.json").read_text())
    except FileNotFoundError:
        found = (
            ", ".join(sorted(path.name for path in model_dir.iterdir())[:10]) if model_dir.is_dir() else ""
        )
        raise StartupError(
            f"There is no config.json in {model_dir} ({found or 'no file'}): put what save_pretrained wrote into the "
            "root of model.tar.gz, or set HF_MODEL_ID, or add code/inference.py with a model_fn."
        ) from None
    except ValueError as error:
        raise StartupError(
            f"config.json is no JSON ({error}): save the model again with save_pretrained."
        ) from error
    architecture = (config.get("architectures") or [""])[0]
    ends = [end for end in _BY_ARCHITECTURE if architecture.endswith(end)]
    if not ends:
        examples = ", ".join(sorted(set(_BY_ARCHITECTURE.values()))[:6])
        raise StartupError(
            f"The task cannot be inferred from the architecture {architecture or '(none)'} in config.json: set "
            f"HF_TASK to a task of transformers.pipeline, such as {examples}."
        )
    return _BY_ARCHITECTURE[max(ends, key=len)]
