"""The `inference.py` contract: user functions where given, defaults elsewhere.

    model_fn(model_dir) -> model
    input_fn(body, content_type) -> data
    predict_fn(data, model) -> prediction
    predict_batch_fn(inputs, model) -> predictions, a list of as many, of several invocations at once
    output_fn(prediction, accept) -> body, or (body, content type)
    transform_fn(model, body, content_type, accept) -> the same, in place of those above

Each may take one more argument, the context, and may be `async def`. A generator as the last result is a
stream. `pre_model_fn(model_dir)` and `model_warmup_fn(model_dir, model)` run around loading, if present.
"""

import importlib
import inspect
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path, PurePosixPath
from types import GeneratorType, ModuleType
from typing import Any

from moorage.modelhost import encoding, families, responses, versions
from moorage.modelhost.batches import BatchPredictor, Raised, listed
from moorage.modelhost.context import FORWARDED_HEADERS, Context
from moorage.modelhost.errors import StartupError
from moorage.modelhost.families.base import ErrorReply, Family
from moorage.modelhost.settings import Settings

Function = Callable[..., Any]
Steps = Generator[Any, Any, Any]
"""Yields what user functions return, and is sent what came of it."""
Answer = tuple[bytes | Iterator[Any] | AsyncIterator[Any], str, Context | None]
"""A whole body, or the parts of a stream; its content type; and what user code has said of the reply besides."""

_REPLACED_BY_TRANSFORM = ("input_fn", "predict_fn", "predict_batch_fn", "output_fn")
_SHIMS = Path(__file__).with_name("shims")
_NAMES_OF_CONTEXT = ("context", "ctx", "_context")
_OF_AN_INVOCATION = (*_REPLACED_BY_TRANSFORM, "transform_fn")

_PARAMETERS = {
    "pre_model_fn": ("model_dir",),
    "model_fn": ("model_dir",),
    "model_warmup_fn": ("model_dir", "model"),
    "input_fn": ("body", "content_type"),
    "predict_fn": ("data", "model"),
    "predict_batch_fn": ("inputs", "model"),
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


_context: ContextVar[Context] = ContextVar("context")
"""Of the invocation that runs. It is no argument, so that functions that take none are called as they are."""


def _is_async(function: Function) -> bool:
    """Also of an object that is called as a function is."""
    return any(
        inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called)
        for called in (function, type(function).__call__)
    )


class Handler:
    """One loaded model. `wait` runs an awaitable to its end, for user functions that are async."""

    def __init__(
        self, settings: Settings, *, wait: Callable[[Awaitable[Any]], Any], gpu_id: int | None = None
    ) -> None:
        self._gpu_id = gpu_id
        self._settings = settings
        self.model_dir = settings.model_dir
        self._wait = wait
        self._functions: dict[str, Function] = {}
        self._family: Family = Family(settings)
        self._input: Function = self._family.decode
        self._predict: Function = self._family.predict
        self._output: Function | None = None
        self._transform: Function | None = None
        self._model: Any = None
        self._batches = BatchPredictor(lambda data: data)
        self._given: dict[str, Function] = {}
        self._takes_context: set[str] = set()

    def load(self) -> None:
        """Imports the user's module and loads the model. What it raises besides StartupError is the user's."""
        module = _import_program(self._settings)
        self._family = families.create(self._settings, has_code=module is not None)
        given = {name: getattr(module, name, None) for name in _PARAMETERS} if module else {}
        self._given = {name: function for name, function in given.items() if function is not None}
        self._functions = {name: self._prepared(name, function) for name, function in self._given.items()}
        mixed = [name for name in _REPLACED_BY_TRANSFORM if name in self._functions]
        if "transform_fn" in self._functions and mixed:
            raise StartupError(
                f"{self._settings.program} defines transform_fn together with {', '.join(mixed)}: keep either "
                "transform_fn or the others, since transform_fn replaces them."
            )
        self._family.gpu_id = self._gpu_id
        self.model_dir = model_dir = self._family.model_dir()
        _context.set(Context(model_dir=model_dir, headers={}, gpu_id=self._gpu_id))
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
        self._output = self._functions.get("output_fn")
        predict_all = self._functions.get("predict_batch_fn")
        if predict_all is not None and _is_async(self._given["predict_batch_fn"]):
            raise StartupError(
                f"predict_batch_fn in {self._settings.program} is async, and async functions run side by side, not "
                "in batches: make it a plain function, or define an async predict_fn(data, model) in its place."
            )
        default = self._family.predict if predict_all is None else _of_one(predict_all)
        self._predict = self._functions.get("predict_fn", default)
        if self._transform is None and self._predict == self._family.predict:
            self._family.check(self._model)
        self._batches = BatchPredictor(
            lambda data: self._finished(self._predict(data, self._model)),
            None if predict_all is None else lambda inputs: predict_all(inputs, self._model),
        )

    def _prepared(self, name: str, function: Function) -> Function:
        """As it is called: with the arguments that every such function takes."""
        if not _takes_context(name, function, fills_defaults=self._family.fills_default_context):
            return function
        self._takes_context.add(name)
        return lambda *arguments: function(*arguments, _context.get())

    @property
    def takes_context(self) -> bool:
        """Whether any function of an invocation does."""
        return not self._takes_context.isdisjoint(_OF_AN_INVOCATION)

    @property
    def is_async(self) -> bool:
        """Whether user code waits in a way that lets other invocations run meanwhile."""
        return any(_is_async(self._given[name]) for name in _OF_AN_INVOCATION if name in self._given)

    @property
    def in_the_way_of_batches(self) -> str | None:
        """Why several invocations cannot be one batch, or None when they can."""
        if self._transform is not None:
            return "transform_fn makes the whole reply to one invocation"
        for name in ("predict_fn", "predict_batch_fn"):
            if name in self._takes_context:
                return f"{name} takes the context of one invocation"
        return "functions are async, and run side by side" if self.is_async else None

    def version_differences(self) -> list[str]:
        """Sentences about frameworks that are others than the image says."""
        named = versions.named_by(self._settings.framework_version, self._family.distributions)
        return versions.differences(named)

    def explain(self, error: BaseException) -> ErrorReply:
        return self._family.explain(error)

    def transform(self, body: bytes, headers: Mapping[str, str], context: Context | None) -> Answer:
        """One invocation; `context` when `takes_context`. Raises InvocationError, or whatever user code raises."""
        answer: Answer = self._run(self._steps(body, headers, context))
        return answer

    async def transform_async(
        self, body: bytes, headers: Mapping[str, str], context: Context | None
    ) -> Answer:
        """The same, beside others."""
        steps = self._steps(body, headers, context)
        try:
            result = next(steps)
            while True:
                result = steps.send(await result if inspect.isawaitable(result) else result)
        except StopIteration as end:
            answer: Answer = end.value
            return answer

    def transform_all(
        self, calls: Sequence[tuple[bytes, Mapping[str, str], Context | None]]
    ) -> list[Answer | Raised]:
        """Several invocations, whose predictions are made at once where the inputs are alike."""
        results: list[Any] = []
        for call in calls:
            results.append(self._alone(self._reading(*call)))
        read = [number for number, result in enumerate(results) if not isinstance(result, Raised)]
        predictions = self._batches.predict(
            [self._row_or_rows(results[number]) for number in read],
            [calls[number][1].get("content-type") for number in read],
        )
        for number, prediction in zip(read, predictions, strict=True):
            _, headers, context = calls[number]
            results[number] = prediction
            if not isinstance(prediction, Raised):
                results[number] = self._alone(self._writing(prediction, headers, context))
        return results

    def _row_or_rows(self, data: Any) -> Any:
        """What the family's own `predict` makes of an input, so that it can be one of several."""
        return self._family.as_rows(data, self._model) if self._predict == self._family.predict else data

    def _alone(self, steps: Steps) -> Any:
        """What fails for one invocation of a batch does not fail for the others."""
        try:
            return self._run(steps)
        except Exception as error:
            return Raised(error)

    def _run(self, steps: Steps) -> Any:
        try:
            result = next(steps)
            while True:
                result = steps.send(self._finished(result))
        except StopIteration as end:
            return end.value

    def _steps(self, body: bytes, headers: Mapping[str, str], context: Context | None) -> Steps:
        if self._transform is not None:
            content_type, accept = self._begin(headers, context)
            data = self._text_or_bytes(body, content_type)
            result = yield self._transform(self._model, data, content_type, accept)
            return self._answer(result, accept, context)
        data = yield from self._reading(body, headers, context)
        prediction = yield self._predict(data, self._model)
        return (yield from self._writing(prediction, headers, context))

    def _reading(self, body: bytes, headers: Mapping[str, str], context: Context | None) -> Steps:
        content_type, _ = self._begin(headers, context)
        return (yield self._input(self._text_or_bytes(body, content_type), content_type))

    def _writing(self, prediction: Any, headers: Mapping[str, str], context: Context | None) -> Steps:
        _, accept = self._begin(headers, context)
        if self._output is not None:
            return self._answer((yield self._output(prediction, accept)), accept, context)
        if isinstance(prediction, (bytes, bytearray)) or _is_stream(prediction.__class__):
            return self._answer(prediction, accept, context)
        return *self._family.encode(prediction, accept), context

    def _begin(self, headers: Mapping[str, str], context: Context | None) -> tuple[str | None, str]:
        """The content type of the request, and what the reply may be."""
        if context is not None:
            _context.set(context)
        accept = headers.get("accept")
        if not accept or accept.strip() == "*/*":
            accept = self._family.accept
        return headers.get("content-type"), accept

    def _text_or_bytes(self, body: bytes, content_type: str | None) -> bytes | str:
        return encoding.to_text(body) if self._family.is_text(content_type) else body

    def _finished(self, result: Any) -> Any:
        if _may_be_awaitable(result.__class__) and inspect.isawaitable(result):
            return self._wait(result)
        return result

    def _answer(self, result: Any, accept: str, context: Context | None) -> Answer:
        body, content_type = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
        content_type = str(content_type or self._family.reply_type(accept))
        if isinstance(body, str):
            return body.encode(), content_type, context
        if isinstance(body, (bytes, bytearray, memoryview)):
            return bytes(body), content_type, context
        if _is_stream(body.__class__):
            return body, content_type, context
        response = responses.read(body)
        if response is not None:
            return self._responded(response, context)
        # Neither text nor bytes, such as a dict from transform_fn: encoded as the default output_fn would.
        media = encoding.media_type(content_type)
        media = media if encoding.supports(media) else encoding.JSON
        return encoding.encode(body, media), media, context

    def _responded(self, response: responses.Response, context: Context | None) -> Answer:
        context = context or Context(model_dir=self.model_dir, headers={})
        context.set_response_status(response.status)
        context.set_response_content_type(response.content_type)
        for name in FORWARDED_HEADERS & response.headers.keys():
            context.set_response_header(name, response.headers[name])
        return response.body, response.content_type, context


def _of_one(predict_all: Function) -> Function:
    """A `predict_fn` by a `predict_batch_fn`."""
    return lambda data, model: listed(predict_all([data], model), 1)[0]


def _import_program(settings: Settings) -> ModuleType | None:
    """The user's module, or None when the model brings none. It is looked for in `code/`, then beside the model."""
    directories = [] if settings.code_dir is None else [settings.code_dir, settings.code_dir / "lib"]
    if settings.model_dir not in directories:
        directories.append(settings.model_dir)
    # Also without a program: a pickled model may need modules that lie here.
    sys.path[:0] = map(str, directories)
    sys.path.append(str(_SHIMS))
    program = PurePosixPath(settings.program)
    if program.suffix != ".py":
        program = PurePosixPath(settings.program.replace(".", "/") + ".py")
    if not any((directory / program).is_file() for directory in directories):
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
