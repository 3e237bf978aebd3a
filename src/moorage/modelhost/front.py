"""The front process: binds the port, sees to the environment, and forks the workers that it supervises."""

import logging
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

from moorage.modelhost import versions
from moorage.modelhost.errors import StartupError
from moorage.modelhost.forked import fork_worker
from moorage.modelhost.settings import Settings

logger = logging.getLogger("modelhost")


def serve(settings: Settings) -> None:
    """Returns after SIGTERM or SIGINT. StartupError, before the port is opened, when there is nothing to serve."""
    # Until there is an event loop, stopping means leaving.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    with _bound(settings) as listener:
        python = Path(sys.executable)
        pins = versions.requirements(_pinned(settings))
        if settings.requirements is not None or pins:
            from moorage.modelhost import environments  # here, because most models bring none

            logger.info(
                "environment for %s", ", ".join([*pins, str(settings.requirements or "")]).strip(", ")
            )
            python = environments.python_for(settings.requirements, settings.environments_dir, pins=pins)
        forks = settings.forks and python == Path(sys.executable)
        workers = [fork_worker(settings, number) for number in range(settings.workers)] if forks else []
        from moorage.modelhost import supervision  # here: the workers need nothing of it

        supervision.serve(settings, python, listener, workers)


def _pinned(settings: Settings) -> dict[str, str]:
    """The versions that the image names, where they are to run."""
    if not settings.pins_frameworks:
        return {}
    from moorage.modelhost import families

    distributions = families.create(settings, has_code=settings.code_dir is not None).distributions
    return versions.named_by(settings.framework_version, distributions)


def _bound(settings: Settings) -> socket.socket:
    """Bound, so that a taken port is known at once, but not listening, so that nobody gets through yet."""
    sock = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
    except OSError as error:
        sock.close()
        raise StartupError(
            f"Cannot listen on {settings.host}:{settings.port} ({error.strerror}): free the port, or set "
            "SAGEMAKER_BIND_TO_PORT or SAGEMAKER_BIND_TO_HOST to one that is free."
        ) from None
    return sock


def _leave(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(0)
