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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import PurePosixPath
from types import GeneratorType, ModuleType
from typing import Any

from moorage.modelhost import encoding, families
from moorage.modelhost.context import Context
from moorage.modelhost.errors import StartupError
from moorage.modelhost.families.base import Answer, ErrorReply, Family
from moorage.modelhost.settings import Settings

Function = Callable[..., Any]

_REPLACED_BY_TRANSFORM = ("input_fn", "predict_fn", "output_fn")
_NAMES_OF_CONTEXT = ("context", "ctx", "_context")
_OF_AN_INVOCATION = (*_REPLACED_BY_TRANSFORM, "transform_fn")

_PARAMETERS = {
    "pre_model_fn": ("model_dir",),
    "model_fn": ("model_dir",),
    "model_warmup_fn": ("model_dir", "model"),
    "input_fn": ("body", "content_type"),
    "predict_fn": ("data", "model"),
    "output_fn": ("prediction", "accept"),
    "transform_fn": ("model", "body", "content_type", "accept"),
}


# Abstract base classes take their time to answer, so they are asked about each type once.


@lru_cache(maxsize=256)
def _may_be_awaitable(kind: type) -> bool:
    return issubclass(kind, (Awaitable, GeneratorType))  # a generator may be a coroutine of the old kind


@lru_cache(maxsize=256)
def _is_stream(kind: type) -> bool:
    return issubclass(kind, (Iterator, AsyncIterator))


class Handler:
    """One loaded model. `wait` runs an awaitable to its end, for user functions that are async."""

    def __init__(self, settings: Settings, *, wait: Callable[[Awaitable[Any]], Any]) -> None:
        self._settings = settings
        self._wait = wait
        self._functions: dict[str, Function] = {}
        self._family: Family = Family(settings)
        self._input: Function = self._family.decode
        self._predict: Function = self._family.predict
        self._output: Function | None = None
        self._transform: Function | None = None
        self._model: Any = None
        # Of the one invocation that runs. It is no argument, so that functions that take none are called as they are.
        self._context: Context | None = None
        self.takes_context = False
        """Whether any function of an invocation does."""

    def load(self) -> None:
        """Imports the user's module and loads the model. What it raises besides StartupError is the user's."""
        module = _import_program(self._settings)
        self._family = families.create(self._settings, has_code=module is not None)
        given = {name: getattr(module, name, None) for name in _PARAMETERS} if module else {}
        self._functions = {
            name: self._prepared(name, function) for name, function in given.items() if function is not None
        }
        mixed = [name for name in _REPLACED_BY_TRANSFORM if name in self._functions]
        if "transform_fn" in self._functions and mixed:
            raise StartupError(
                f"{self._settings.program} defines transform_fn together with {', '.join(mixed)}: keep either "
                "transform_fn or the others, since transform_fn replaces them."
            )
        model_dir = self._settings.model_dir
        self._context = Context(model_dir=model_dir, headers={})
        if "pre_model_fn" in self._functions:
            self._finished(self._functions["pre_model_fn"](str(model_dir)))
        if "model_fn" in self._functions:
            self._model = self._finished(self._functions["model_fn"](str(model_dir)))
        else:
            self._model = self._family.load(model_dir)
        if "model_warmup_fn" in self._functions:
            self._finished(self._functions["model_warmup_fn"](str(model_dir), self._model))
        self._transform = self._functions.get("transform_fn")
        self._input = self._functions.get("input_fn", self._family.decode)
        self._predict = self._functions.get("predict_fn", self._family.predict)
        self._output = self._functions.get("output_fn")
        if self._transform is None and "predict_fn" not in self._functions:
            self._family.check(self._model)

    def _prepared(self, name: str, function: Function) -> Function:
        """As it is called: with the arguments that every such function takes."""
        if not _takes_context(name, function, fills_defaults=self._family.fills_default_context):
            return function
        if name in _OF_AN_INVOCATION:
            self.takes_context = True
        return lambda *arguments: function(*arguments, self._context)

    def explain(self, error: BaseException) -> ErrorReply:
        return self._family.explain(error)

    def transform(self, body: bytes, headers: Mapping[str, str], context: Context | None) -> Answer:
        """One invocation; `context` when `takes_context`. Raises InvocationError, or whatever user code raises."""
        self._context = context
        content_type = headers.get("content-type")
        accept = headers.get("accept")
        if not accept or accept.strip() == "*/*":
            accept = self._family.accept
        data = encoding.to_text(body) if self._family.is_text(content_type) else body
        if self._transform is not None:
            result = self._finished(self._transform(self._model, data, content_type, accept))
            return self._answer(result, accept)
        return self._input_predict_output(data, content_type, accept)

    def _input_predict_output(self, body: bytes | str, content_type: str | None, accept: str) -> Answer:
        data = self._finished(self._input(body, content_type))
        prediction = self._finished(self._predict(data, self._model))
        if self._output is not None:
            return self._answer(self._finished(self._output(prediction, accept)), accept)
        if isinstance(prediction, (bytes, bytearray)) or _is_stream(prediction.__class__):
            return self._answer(prediction, accept)
        return self._family.encode(prediction, accept)

    def _finished(self, result: Any) -> Any:
        if _may_be_awaitable(result.__class__) and inspect.isawaitable(result):
            return self._wait(result)
        return result

    def _answer(self, result: Any, accept: str) -> Answer:
        body, content_type = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
        content_type = content_type or self._family.reply_type(accept)
        if isinstance(body, str):
            return body.encode(), str(content_type)
        if isinstance(body, (bytes, bytearray, memoryview)):
            return bytes(body), str(content_type)
        if _is_stream(body.__class__):
            return body, str(content_type)
        # Neither text nor bytes, such as a dict from transform_fn: encoded as the default output_fn would.
        media = encoding.media_type(content_type)
        media = media if encoding.supports(media) else encoding.JSON
        return encoding.encode(body, media), media


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


def _takes_context(name: str, function: Function, *, fills_defaults: bool) -> bool:
    """Whether the context is passed as one argument more. A parameter with a default keeps it, but for one that is
    named as the context is."""
    expected = _PARAMETERS[name]
    parameters = inspect.signature(function).parameters.values()
    positional = [
        each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return False
    further = positional[len(expected) :]
    if len(positional) < len(expected) or any(each.default is each.empty for each in further[1:]):
        raise StartupError(
            f"{name} takes {len(positional)} arguments, but it is called as {name}({', '.join(expected)}), or with "
            "context as one more: change its parameters."
        )
    return bool(further) and (
        further[0].default is inspect.Parameter.empty
        or (fills_defaults and further[0].name in _NAMES_OF_CONTEXT)
    )
