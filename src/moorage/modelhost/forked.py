"""A worker that is forked from the front: it begins with what the front has imported, whose memory both share.

The front runs no user code, so nothing of a model is in a process before it is forked. The first workers are forked
before the front has imported asyncio, which few of them need. A model with an environment of its own has another
interpreter, and is started by `bootstrap`.
"""

import atexit
import gc
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from moorage.modelhost import output
from moorage.modelhost.errors import StartupError
from moorage.modelhost.settings import Settings
from moorage.modelhost.shared import Shared


@dataclass(frozen=True)
class Forked:
    """A worker, with our end of the socket pair and the memory that it shares with us."""

    pid: int
    control: socket.socket
    shared: Shared


def fork_worker(settings: Settings, number: int) -> Forked:
    """StartupError when the system has no room for another process."""
    from moorage.modelhost import worker  # here, because nobody needs it who does not fork

    with channel() as (control, shared, descriptors):
        pid = _fork(
            partial(worker.main, *descriptors, os.getpid(), number),
            descriptors=descriptors,
            directory=settings.code_dir,
            environment=environment_of(settings),
        )
    return Forked(pid, control, shared)


@contextmanager
def channel() -> Iterator[tuple[socket.socket, Shared, tuple[int, int]]]:
    """Our end of a socket pair, the memory that a worker shares with us, and the descriptors of its end and of that
    memory, which are open until the block has started it. StartupError when the system has no room for that."""
    with ExitStack() as stack:
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.callback(theirs.close)
            unless_started = stack.enter_context(ExitStack())
            unless_started.callback(ours.close)
            shared, memory = Shared.create()
            stack.callback(os.close, memory)
            yield ours, shared, (theirs.fileno(), memory)
        except OSError as error:
            raise StartupError(
                f"No process can be started for the model ({error}): give the container more memory, processes or "
                "file descriptors."
            ) from error
        unless_started.pop_all()


def environment_of(settings: Settings) -> dict[str, str]:
    """What a worker has beside our own environment. Its working directory is another one, so paths are whole: user
    code reads these too."""
    paths = {"SM_MODEL_DIR": settings.model_dir, "SAGEMAKER_SUBMIT_DIRECTORY": settings.code_dir}
    defaults = {name: value for name, value in _defaults(settings).items() if name not in os.environ}
    return defaults | {name: str(path) for name, path in paths.items() if path is not None}


def _fork(
    run: Callable[[], None],
    *,
    descriptors: Collection[int],
    directory: Path | None,
    environment: Mapping[str, str],
) -> int:
    """The id of a process that runs the function, and has none of our files open but these descriptors. OSError when
    the system has no room for one."""
    gc.collect()
    gc.freeze()  # what is there stays where it is, so that no collection writes to memory that is shared
    pid = os.fork()
    if pid:
        return pid
    status = os.EX_SOFTWARE
    try:
        _leave_the_front(descriptors)
        os.environ.update(environment)
        if directory is not None:
            os.chdir(directory)
        run()
        status = os.EX_OK
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else os.EX_SOFTWARE
    except BaseException:
        traceback.print_exc()
    finally:
        _end(status)


def _defaults(settings: Settings) -> dict[str, str]:
    """What AWS's images set where the model's Environment does not."""
    return {"OMP_NUM_THREADS": "1"} if settings.family == "xgboost" else {}


def _leave_the_front(descriptors: Collection[int]) -> None:
    """Nothing of its loop, its signals and its connections is left here."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if "asyncio" in sys.modules:
        sys.modules["asyncio"].set_event_loop(None)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    kept = sorted({0, 1, 2, *descriptors})
    for first, after in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(first + 1, after)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    sys.path[:] = [path for path in sys.path if path not in ("", str(Path.cwd()))]


def _end(status: int) -> NoReturn:
    """As the interpreter ends, with what user code has registered for that, but without the front's own objects."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for those that are no daemons
        atexit._run_exitfuncs()
        output.flush()
    finally:
        os._exit(status)  # whatever user code does: behind us on the stack is the front
