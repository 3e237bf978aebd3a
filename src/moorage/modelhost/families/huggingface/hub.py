"""Models from a hub, by HF_MODEL_ID."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final

from moorage.modelhost.errors import StartupError, require
from moorage.modelhost.settings import Settings

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS: Final = 20.0
"""For the answer to which files there are, with all that the client does before."""

_OTHER_FRAMEWORKS: Final = (
    *("*.h5", "*.msgpack", "*.ot", "*.tflite", "*.mlmodel", "*.onnx", "*.onnx_data"),
    *("coreml/*", "onnx/*", "openvino/*", "original/*"),
)
_OF_PYTORCH: Final = ("pytorch_model*.bin", "pytorch_model*.bin.index.json")


def keep_below(directory: Path, environ: MutableMapping[str, str]) -> None:
    """What the libraries load and make is kept there, unless HF_HOME says where: the user may have no home."""
    environ.setdefault("HF_HOME", str(directory / "huggingface"))


def download(settings: Settings, environ: Mapping[str, str]) -> Path:
    """The directory of the model; what is there already is not loaded again. StartupError when it cannot be had."""
    hub = _client_library()
    hub.utils.disable_progress_bars()
    name, revision = settings.hf_model_id, settings.hf_model_revision
    arguments: dict[str, Any] = {
        "repo_id": name,
        "revision": revision,
        "token": settings.hf_token,
        "cache_dir": _cache(environ),
    }
    # Without it the client's own log would tell of each of its many attempts.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    client = hub.HfApi(token=settings.hf_token)
    patience = hub.constants.HF_HUB_ETAG_TIMEOUT
    try:
        found = _in_time(lambda: client.model_info(name, revision=revision, timeout=patience))
        logger.info("loading %s, revision %s, from %s", name, found.sha, client.endpoint)
        files = [each.rfilename for each in found.siblings or ()]
        path = hub.snapshot_download(ignore_patterns=left_out(files), **arguments)
    except Exception as error:  # of whatever kind: it depends on the client's version
        earlier = _earlier(hub, arguments, error)
        if earlier is None:
            raise _refusal(settings, client.endpoint, error) from error
        path = earlier
    return Path(path)


def _client_library() -> Any:
    for part in (".constants", ".errors", ".utils", ""):  # they are not imported with the package
        hub = require(
            f"huggingface_hub{part}", by="HF_MODEL_ID", package="huggingface_hub", extra="transformers"
        )
    return hub


def left_out(files: Iterable[str]) -> list[str]:
    """Patterns of what is not needed: weights of other frameworks, and those that there are as safetensors."""
    has_safetensors = any(name.endswith(".safetensors") and "/" not in name for name in files)
    return [*_OTHER_FRAMEWORKS, *(_OF_PYTORCH if has_safetensors else ())]


def _cache(environ: Mapping[str, str]) -> Path:
    """Said to the client, which may have been imported before `keep_below` has named the home."""
    return Path(environ.get("HF_HUB_CACHE") or Path(environ["HF_HOME"], "hub"))


def _in_time(ask: Callable[[], Any]) -> Any:
    answers: list[Any] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            answers.append(ask())
        except Exception as error:
            errors.append(error)

    asking = threading.Thread(target=run, name="hub", daemon=True)
    asking.start()
    asking.join(_PATIENCE_SECONDS)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no answer within {_PATIENCE_SECONDS:g} s")
    return answers[0]


def _earlier(hub: Any, arguments: dict[str, Any], reason: Exception) -> str | None:
    """What an earlier start has loaded, where the hub cannot be reached now."""
    if _is_refused(reason):
        return None
    try:
        path: str = hub.snapshot_download(
            local_files_only=True, ignore_patterns=[*_OTHER_FRAMEWORKS, *_OF_PYTORCH], **arguments
        )
    except hub.errors.LocalEntryNotFoundError:
        return None
    logger.warning("the hub cannot be reached (%s); serving what was loaded before", _said(reason))
    return path


def _is_refused(error: Exception) -> bool:
    """Whether the hub has answered, and does not give the model."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status in (400, 401, 403, 404) or type(error).__name__ == "HFValidationError"


def _refusal(settings: Settings, endpoint: str, error: Exception) -> StartupError:
    name = settings.hf_model_id
    if _is_refused(error):
        revision = f" with the revision {settings.hf_model_revision}" if settings.hf_model_revision else ""
        return StartupError(
            f"{endpoint} does not give {name}{revision} ({_said(error)}): correct HF_MODEL_ID or HF_MODEL_REVISION, "
            "or set HF_TOKEN to a token that may read it.",
            detail=str(error),
        )
    return StartupError(
        f"{name} cannot be loaded from {endpoint} ({_said(error)}): download it where there is a network (hf "
        f"download {name} --local-dir model, or save_pretrained), pack it (tar -C model -czf model.tar.gz .), name "
        "the archive in ModelDataUrl and leave out HF_MODEL_ID; or set HF_ENDPOINT to a mirror.",
        detail=str(error),
    )


def _said(error: Exception) -> str:
    first_line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first_line[:200]}" if first_line else type(error).__name__
