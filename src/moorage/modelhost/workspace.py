"""The working directory of user code: one where it may write, with the files of the model and of its code.

Images for PyTorch and Hugging Face run in the directory of the model, those for scikit-learn and XGBoost in that of
the code; scripts open files by relative names in both. What holds them may be read-only here.
"""

import os
from contextlib import suppress
from pathlib import Path

from moorage.modelhost.settings import Settings


def enter(settings: Settings) -> None:
    """Change to the directory of the code, or, where that cannot be written, to one with links to what is in it and
    beside the model. What an earlier worker has written there is still there."""
    if settings.code_dir is not None and os.access(settings.code_dir, os.W_OK):
        os.chdir(settings.code_dir)
        return
    directory = _of_our_own(f"moorage-{os.getuid()}-{settings.port}")
    for source in (settings.code_dir, settings.model_dir):
        for path in sorted(source.iterdir()) if source is not None and source.is_dir() else ():
            with suppress(FileExistsError):  # another worker, or an earlier one, has made it
                (directory / path.name).symlink_to(path)
    os.chdir(directory)


def _of_our_own(name: str) -> Path:
    """A temporary directory that no other user has made."""
    import tempfile  # here, because it imports much that most workers never need

    directory = Path(tempfile.gettempdir(), name)
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        found = directory.lstat()
        if not directory.is_dir() or directory.is_symlink() or found.st_uid != os.getuid():
            return Path(tempfile.mkdtemp(prefix=f"{name}-"))
    return directory
