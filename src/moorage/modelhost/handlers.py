"""The `inference.py` contract: user functions where given, defaults elsewhere.

    model_fn(model_dir) -> model
    input_fn(body, content_type) -> data
    predict_fn(data, model) -> prediction
    output_fn(prediction, accept) -> body, or (body, content type)
    transform_fn(model, body, content_type, accept) -> the same, in place of the three above

Each may take one more argument, the context, and may be `async def`. A generator as the last result is a
stream. `pre_model_fn(model_dir)` and `model_warmup_fn(model_dir, model)` run around loading, if present.
"""

import importlib
import inspect
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import PurePosixPath
from types import ModuleType
from typing import Any

from moorage.modelhost import artifacts, encoding
from moorage.modelhost.context import Context
from moorage.modelhost.errors import StartupError
from moorage.modelhost.settings import Settings

Function = Callable[..., Any]

_PARAMETERS = {
    "pre_model_fn": ("model_dir",),
    "model_fn": ("model_dir",),
    "model_warmup_fn": ("model_dir", "model"),
    "input_fn": ("body", "content_type"),
    "predict_fn": ("data", "model"),
    "output_fn": ("prediction", "accept"),
    "transform_fn": ("model", "body", "content_type", "accept"),
}


Answer = tuple[bytes | Iterator[Any] | AsyncIterator[Any], str]
"""A whole body, or the parts of a stream, and its content type."""


class Handler:
    """One loaded model. `wait` runs an awaitable to its end, for user functions that are async."""

    def __init__(self, settings: Settings, *, wait: Callable[[Awaitable[Any]], Any]) -> None:
        self._settings = settings
        self._wait = wait
        self._functions: dict[str, tuple[Function, bool]] = {}
        self._model: Any = None

    def load(self) -> None:
        """Imports the user's module and loads the model. What it raises besides StartupError is the user's."""
        module = _import_program(self._settings)
        given = {name: getattr(module, name, None) for name in _PARAMETERS} if module else {}
        self._functions = {
            name: (fn, _takes_context(name, fn)) for name, fn in given.items() if fn is not None
        }
        mixed = [name for name in ("input_fn", "predict_fn", "output_fn") if name in self._functions]
        if "transform_fn" in self._functions and mixed:
            raise StartupError(
                f"{self._settings.program} defines transform_fn together with {', '.join(mixed)}: keep either "
                "transform_fn or the others, since transform_fn replaces them."
            )
        model_dir = self._settings.model_dir
        context = Context(model_dir=model_dir, headers={})
        if "pre_model_fn" in self._functions:
            self._call("pre_model_fn", context, str(model_dir))
        if "model_fn" in self._functions:
            self._model = self._call("model_fn", context, str(model_dir))
        else:
            self._model = artifacts.load(model_dir)
        if "model_warmup_fn" in self._functions:
            self._call("model_warmup_fn", context, str(model_dir), self._model)
        if not {"predict_fn", "transform_fn"} & self._functions.keys():
            self._require_predictor()

    def _require_predictor(self) -> None:
        if artifacts.predictor(self._model) is None:
            raise StartupError(
                f"The model is a {type(self._model).__name__}, which has no predict method and cannot be called: "
                f"define predict_fn(data, model) in {self._settings.program}."
            )

    def transform(self, body: bytes, context: Context) -> Answer:
        """One invocation. Raises InvocationError, or whatever user code raises."""
        content_type = context.get_request_header("content-type")
        accept = context.get_request_header("accept")
        if not accept or accept.strip() == "*/*":
            accept = self._settings.default_accept
        # Text types reach user code as str, all others as bytes, as in the toolkit.
        is_text = encoding.media_type(content_type) in encoding.TEXT_TYPES
        data = encoding.to_text(body) if is_text else body
        if "transform_fn" in self._functions:
            result = self._call("transform_fn", context, self._model, data, content_type, accept)
        else:
            result = self._input_predict_output(data, content_type, accept, context)
        return self._answer(result, accept)

    def _input_predict_output(
        self, body: bytes | str, content_type: str | None, accept: str, context: Context
    ) -> Any:
        if "input_fn" in self._functions:
            data = self._call("input_fn", context, body, content_type)
        else:
            data = encoding.decode(body, content_type)
        if "predict_fn" in self._functions:
            prediction = self._call("predict_fn", context, data, self._model)
        else:
            predict = artifacts.predictor(self._model)
            assert predict is not None, "checked when the model was loaded"
            prediction = self._finished(predict(data))
        if "output_fn" in self._functions:
            return self._call("output_fn", context, prediction, accept)
        if _is_stream(prediction) or isinstance(prediction, bytes | bytearray):
            return prediction
        media = encoding.choose(accept, self._settings.default_accept)
        return encoding.encode(prediction, media), media

    def _call(self, name: str, context: Context, *arguments: Any) -> Any:
        function, takes_context = self._functions[name]
        return self._finished(function(*arguments, context) if takes_context else function(*arguments))

    def _finished(self, result: Any) -> Any:
        return self._wait(result) if inspect.isawaitable(result) else result

    def _answer(self, result: Any, accept: str) -> Answer:
        body, content_type = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
        content_type = content_type or next(iter(encoding.preferences(accept)), self._settings.default_accept)
        if _is_stream(body):
            return body, str(content_type)
        if isinstance(body, str):
            return body.encode(), str(content_type)
        if isinstance(body, bytes | bytearray | memoryview):
            return bytes(body), str(content_type)
        # Neither text nor bytes, such as a dict from transform_fn: encoded as the default output_fn would.
        media = encoding.media_type(content_type)
        media = media if encoding.supports(media) else encoding.JSON
        return encoding.encode(body, media), media


def _is_stream(result: Any) -> bool:
    return isinstance(result, Iterator | AsyncIterator)


def _import_program(settings: Settings) -> ModuleType | None:
    """The user's module, or None when the model brings none."""
    if settings.code_dir is not None:
        # Also without a program: a pickled model may need modules that lie here.
        sys.path[:0] = [str(settings.code_dir), str(settings.code_dir / "lib")]
    program = PurePosixPath(settings.program)
    if program.suffix != ".py":
        program = PurePosixPath(settings.program.replace(".", "/") + ".py")
    if settings.code_dir is None or not (settings.code_dir / program).is_file():
        if settings.program_is_required:
            where = settings.code_dir or settings.model_dir / "code"
            raise StartupError(
                f"SAGEMAKER_PROGRAM is {settings.program}, which is not in {where}: "
                "put that file there, or correct SAGEMAKER_PROGRAM."
            )
        return None
    return importlib.import_module(".".join(program.with_suffix("").parts))


def _takes_context(name: str, function: Function) -> bool:
    expected = _PARAMETERS[name]
    parameters = inspect.signature(function).parameters.values()
    positional = [
        each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return False
    if len(positional) not in (len(expected), len(expected) + 1):
        raise StartupError(
            f"{name} takes {len(positional)} arguments, but it is called as {name}({', '.join(expected)}), or with "
            "context as one more: change its parameters."
        )
    return len(positional) == len(expected) + 1
