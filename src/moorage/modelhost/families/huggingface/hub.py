"""Models that are named and not packed: HF_MODEL_ID."""

import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from moorage.modelhost.errors import StartupError, require
from moorage.modelhost.settings import HuggingFaceSettings

_PATIENCE_SECONDS: Final = 20.0
"""For the first word of the hub. A download goes on for as long as it takes."""

_OTHER_WEIGHTS: Final = ["*.h5", "*.msgpack", "*.ot", "*.onnx", "*.tflite", "*.mlmodel", "*.gguf"]


def download(wanted: HuggingFaceSettings, cache: Path) -> Path:
    """The directory of the model. StartupError that says how to pack it when the hub, or its mirror in HF_ENDPOINT,
    cannot be reached or has no such model."""
    hub = require("huggingface_hub", by="HF_MODEL_ID", package="huggingface_hub", extra="transformers")
    options = {
        "revision": wanted.revision or None,
        "token": wanted.token or None,
        "cache_dir": os.environ.get("HF_HUB_CACHE") or str(cache / "hub"),
    }
    api = hub.HfApi(token=options["token"])
    try:
        files = _soon(partial(api.list_repo_files, wanted.model_id, revision=options["revision"]))
        others = ["*.bin"] if any(name.endswith(".safetensors") for name in files) else []
        return Path(
            hub.snapshot_download(wanted.model_id, ignore_patterns=[*_OTHER_WEIGHTS, *others], **options)
        )
    except Exception as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise StartupError(
            f"HF_MODEL_ID is {wanted.model_id}, which cannot be downloaded ({why}): set HF_ENDPOINT to a mirror that "
            "this machine reaches, or pack the model (hf download MODEL --local-dir model; tar -C model -czf "
            "model.tar.gz .), name the archive in ModelDataUrl and leave HF_MODEL_ID out.",
            detail=str(error),
        ) from error


def _soon(call: Callable[[], Any]) -> Any:
    """The result, or TimeoutError: the hub's client tries for minutes."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run, name="hub", daemon=True)
    thread.start()
    thread.join(_PATIENCE_SECONDS)
    if not results:
        raise TimeoutError(f"no answer for {_PATIENCE_SECONDS:g} s")
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]
