"""The two ways in which things go wrong that are not our bugs."""

import importlib
import traceback
from pathlib import Path
from types import ModuleType
from typing import Final

_OUR_FILES: Final = str(Path(__file__).parent)


class StartupError(Exception):
    """The host cannot serve this model. `sentence` says what to do, `detail` (a traceback, pip's words) why."""

    def __init__(self, sentence: str, *, detail: str = "") -> None:
        super().__init__(sentence)
        # It is promised to be the last line on stderr, so it must be one line.
        self.sentence = " ".join(sentence.split())
        self.detail = detail


class InvocationError(Exception):
    """An answer other than 200 that is not the fault of user code."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def user_traceback(error: BaseException) -> list[str]:
    """Without our own frames, which come first and tell the user nothing."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OUR_FILES):
        trace = trace.tb_next
    return traceback.format_exception(type(error), error, trace)


def require(module: str, *, by: str, package: str, extra: str = "") -> ModuleType:
    """Import a package that not every model needs. StartupError says how to install it; `by` is what needs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0] and error.name != module:
            raise
        where = f"pip install 'moorage[{extra}]'" if extra else f"pip install {package}"
        raise StartupError(
            f"{by} needs {package}, which is not installed: add {package} to code/requirements.txt, or install it "
            f"where the model host runs ({where})."
        ) from error
