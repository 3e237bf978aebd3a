"""The environment variables of the container contract, validated once, as one value."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from moorage.modelhost.errors import StartupError

DEFAULT_PROGRAM = "inference.py"

FAMILIES = ("generic", "scikit-learn", "xgboost", "pytorch", "huggingface")
"""Each has a module in `families`."""

# The platform gives up on a real-time invocation after 60 s, so a worker that is still busy then works for
# nobody; it is also the SageMaker toolkit's default. Async endpoints with longer predictions raise it.
DEFAULT_TIMEOUT_SECONDS = 60.0

_YES = frozenset({"y", "yes", "t", "true", "on", "1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What this container was asked to do. `code_dir` is None when the model brings no code."""

    host: str
    port: int
    model_dir: Path
    code_dir: Path | None
    program: str
    program_is_required: bool
    workers: int
    timeout_seconds: float | None
    default_accept: str | None
    family: str
    framework_version: str
    pins_frameworks: bool
    log_level: int
    max_request_bytes: int | None
    interleaves_streams: bool
    forks: bool
    batch_size: int
    batch_delay_seconds: float
    threads: int
    environments_dir: Path
    inference_ensemble: bool
    """XGBoost without code: whether all of the model's files are served together, or the first of them."""
    inference_output: tuple[str, ...]
    """XGBoost without code: the keys of selectable inference, if any."""
    is_batch_transform: bool
    """XGBoost without code: whether replies are those that batch transform reads, one line for each record."""
    hf_task: str
    """Hugging Face: that of the pipeline, or empty for what the model's files tell."""
    hf_model_id: str
    """Hugging Face: the model's name on the hub, or empty for that of the archive."""
    hf_model_revision: str | None
    hf_token: str | None = field(repr=False)
    hf_trust_remote_code: bool
    """Hugging Face: whether code that comes with the weights may run."""

    @property
    def requirements(self) -> Path | None:
        """The model's requirements.txt, when it brings one that is not blank."""
        if self.code_dir is None:
            return None
        path = self.code_dir / "requirements.txt"
        return path if path.is_file() and path.read_bytes().strip() else None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Settings":
        """Raises StartupError, naming the variable and what it accepts."""
        if environ.get("SAGEMAKER_MULTI_MODEL", "").lower() == "true":
            raise StartupError(
                "SAGEMAKER_MULTI_MODEL=true is not supported by the built-in model host yet: "
                "serve one model per container, or use an image that implements multi-model."
            )
        model_dir = _model_dir(environ)
        timeout = _number(environ, "SAGEMAKER_MODEL_SERVER_TIMEOUT", default=DEFAULT_TIMEOUT_SECONDS)
        family = _family(environ)
        max_request_bytes = int(_number(environ, "SAGEMAKER_MAX_REQUEST_SIZE", default=0))
        if family == "xgboost" and not max_request_bytes:
            max_request_bytes = int(_number(environ, "MAX_CONTENT_LENGTH", default=0))
        return cls(
            host=environ.get("SAGEMAKER_BIND_TO_HOST") or "0.0.0.0",  # noqa: S104 - a container's own network
            port=int(_number(environ, "SAGEMAKER_BIND_TO_PORT", default=8080, highest=65535)),
            model_dir=model_dir,
            code_dir=_code_dir(environ, model_dir),
            program=environ.get("SAGEMAKER_PROGRAM") or DEFAULT_PROGRAM,
            program_is_required=bool(environ.get("SAGEMAKER_PROGRAM")),
            workers=int(_number(environ, "SAGEMAKER_MODEL_SERVER_WORKERS", default=1, lowest=1)),
            timeout_seconds=timeout or None,
            default_accept=environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or None,
            family=family,
            framework_version=environ.get("MOORAGE_FRAMEWORK_VERSION", ""),
            pins_frameworks=environ.get("MOORAGE_FRAMEWORK_VERSIONS") == "pinned",
            log_level=_log_level(environ.get("SAGEMAKER_CONTAINER_LOG_LEVEL") or "INFO"),
            max_request_bytes=max_request_bytes or None,
            batch_size=_batch_size(environ),
            batch_delay_seconds=_batch_delay(environ) / 1000,
            threads=int(_number(environ, "MOORAGE_THREADS", default=1, lowest=1, highest=1000)),
            forks=environ.get("MOORAGE_FORK", "").lower() != "false",
            interleaves_streams=environ.get("MOORAGE_INTERLEAVE_STREAMS", "").lower() != "false",
            environments_dir=_environments_dir(environ),
            inference_ensemble=(environ.get("SAGEMAKER_INFERENCE_ENSEMBLE") or "true").lower() == "true",
            inference_output=_words(environ.get("SAGEMAKER_INFERENCE_OUTPUT", "")),
            is_batch_transform=bool(environ.get("SAGEMAKER_BATCH")),
            hf_task=environ.get("HF_TASK", "").strip(),
            hf_model_id=environ.get("HF_MODEL_ID", "").strip(),
            hf_model_revision=environ.get("HF_MODEL_REVISION") or None,
            hf_token=environ.get("HF_API_TOKEN") or environ.get("HF_TOKEN") or None,
            hf_trust_remote_code=environ.get("HF_TRUST_REMOTE_CODE", "").lower() in _YES,
        )


def _batch_size(environ: Mapping[str, str]) -> int:
    """Invocations; 1 is none. The second variable is one that people have set for TorchServe."""
    name = next((each for each in ("MOORAGE_BATCH_SIZE", "SAGEMAKER_TS_BATCH_SIZE") if environ.get(each)), "")
    return int(_number(environ, name, default=1, lowest=1, highest=10_000)) if name else 1


def _batch_delay(environ: Mapping[str, str]) -> float:
    """Milliseconds. The default is TorchServe's."""
    names = ("MOORAGE_BATCH_DELAY_MS", "SAGEMAKER_TS_MAX_BATCH_DELAY")
    name = next((each for each in names if environ.get(each)), names[0])
    return _number(environ, name, default=100, highest=60_000)


def _family(environ: Mapping[str, str]) -> str:
    name = environ.get("MOORAGE_MODEL_FAMILY") or FAMILIES[0]
    if name not in FAMILIES:
        raise StartupError(f"MOORAGE_MODEL_FAMILY is {name!r}: set it to one of {', '.join(FAMILIES)}.")
    return name


def _model_dir(environ: Mapping[str, str]) -> Path:
    path = environ.get("SM_MODEL_DIR") or Path(environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml") / "model"
    return Path(path).absolute()


def _code_dir(environ: Mapping[str, str], model_dir: Path) -> Path | None:
    """SDKs set SAGEMAKER_SUBMIT_DIRECTORY to an S3 archive or to /opt/ml/model/code, whether there or not."""
    inside_model = model_dir / "code"
    submitted = environ.get("SAGEMAKER_SUBMIT_DIRECTORY", "").removeprefix("file://")
    if submitted and "://" not in submitted and Path(submitted).is_dir():
        return Path(submitted).absolute()
    if inside_model.is_dir():
        return inside_model
    if (model_dir / (environ.get("SAGEMAKER_PROGRAM") or DEFAULT_PROGRAM)).is_file():
        return model_dir
    if submitted:
        raise StartupError(
            f"SAGEMAKER_SUBMIT_DIRECTORY is {submitted}, which is not a directory here, and the model has no "
            f"code directory: put inference.py into code/ inside the model artifact ({inside_model})."
        )
    return None


def _words(text: str) -> tuple[str, ...]:
    """Of a list with commas, in lower case."""
    return tuple(word for word in text.replace(" ", "").lower().split(",") if word)


def _number(
    environ: Mapping[str, str], name: str, *, default: float, lowest: float = 0, highest: float = 2**40
) -> float:
    text = environ.get(name, "").strip()
    if not text:
        return default
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not lowest <= number <= highest:
        limits = f"from {lowest:g}" + (f" to {highest:g}" if highest < 2**40 else "")
        raise StartupError(f"{name} is {text!r}: set it to a number {limits}, or leave it out.")
    return number


def _log_level(text: str) -> int:
    """The SDK sends the number (20); people write the name."""
    level = int(text) if text.isdigit() else logging.getLevelNamesMapping().get(text.upper())
    if level is None:
        raise StartupError(
            f"SAGEMAKER_CONTAINER_LOG_LEVEL is {text!r}: set it to DEBUG, INFO, WARNING, ERROR or a number."
        )
    return level


def _environments_dir(environ: Mapping[str, str]) -> Path:
    chosen = environ.get("MOORAGE_ENVIRONMENTS_DIR")
    if chosen:
        return Path(chosen).absolute()
    try:
        home = Path.home()
    except RuntimeError:  # a container may run as a user that has no entry in passwd
        import tempfile  # here, because it imports much that is of no use otherwise

        home = Path(tempfile.gettempdir())
    return home / ".cache" / "moorage" / "environments"
