"""The family of images that are no other family's: any model, JSON, CSV and NPY."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from moorage.modelhost import artifacts, encoding, http
from moorage.modelhost.errors import InvocationError, StartupError, user_traceback
from moorage.modelhost.settings import Settings

Answer = tuple[bytes | Iterator[Any] | AsyncIterator[Any], str]
"""A whole body, or the parts of a stream, and its content type."""

_TRACEBACK_LINES = 12


class ErrorReply(NamedTuple):
    status: int
    body: str
    content_type: str = http.TEXT


def create(settings: Settings, *, has_code: bool) -> "Family":
    return Family(settings)


class Family:
    """The defaults of `model_fn`, `input_fn`, `predict_fn` and `output_fn`, and what surrounds them."""

    distributions: ClassVar[tuple[str, ...]] = ()
    """The packages whose versions the image's tag names, the first of them first."""
    default_accept: ClassVar[str] = encoding.JSON
    fills_default_context: ClassVar[bool] = True
    """Whether a parameter `context` that has a default gets the context, as one without a default does."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.gpu_id: int | None = None
        """The GPU of this worker. None where there is none."""
        self._ask: Callable[[Any], Any] | None = None

    @property
    def accept(self) -> str:
        """What a client gets that asks for nothing in particular."""
        return self.settings.default_accept or self.default_accept

    def model_dir(self) -> Path:
        """Where the model's files are. StartupError when they are not to be had."""
        return self.settings.model_dir

    def load(self, model_dir: Path) -> Any:
        """The model. StartupError when there is none, or no telling which."""
        return artifacts.load(model_dir)

    def check(self, model: Any) -> None:
        """Before the first `predict` of this model. StartupError when there is no way to ask it."""
        self._ask = artifacts.predictor(model)
        if self._ask is None:
            raise StartupError(
                f"The model is a {type(model).__name__}, which has no predict method and cannot be called: "
                f"define predict_fn(data, model) in {self.settings.program}."
            )

    def is_text(self, content_type: str | None) -> bool:
        """Whether user code gets such a body as str. With any parameter it gets bytes, as in AWS's toolkits."""
        return content_type in encoding.TEXT_TYPES

    def decode(self, body: bytes | str, content_type: str | None) -> Any:
        """What `predict` gets. 415 and 400 as InvocationError."""
        return encoding.decode(body, content_type)

    def predict(self, data: Any, model: Any) -> Any:
        if self._ask is None:
            Family.check(self, model)
        assert self._ask is not None
        return self._ask(data)

    def as_rows(self, data: Any, model: Any) -> Any:
        """What `predict` may be given in a batch: one row is a table of one row."""
        return artifacts.as_rows(data, model)

    def encode(self, prediction: Any, accept: str) -> Answer:
        """The reply with what `predict` gave. 406 as InvocationError."""
        media = encoding.choose(accept, self.accept)
        return encoding.encode(prediction, media), media

    def reply_type(self, accept: str) -> str:
        """The content type of a body that user code has made without naming one."""
        return next(iter(encoding.preferences(accept)), self.accept)

    def explain(self, error: BaseException) -> ErrorReply:
        """The reply to an invocation that raised."""
        if isinstance(error, InvocationError):
            return ErrorReply(error.status, error.message)
        status = 500
        if any(base.__name__ == "BaseInferenceToolkitError" for base in type(error).__mro__):
            # User code may raise the toolkit's own error to choose the status.
            chosen = getattr(error, "status_code", None)
            status = chosen if isinstance(chosen, int) and 400 <= chosen <= 599 else 500
        lines = "".join(user_traceback(error)).splitlines()
        shown = "\n".join(lines[-_TRACEBACK_LINES:])
        return ErrorReply(status, f"{type(error).__name__}: {said_by(error)}\n\n{shown}\n")


def said_by(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as trouble:
        return f"(its __str__ raises {type(trouble).__name__})"
