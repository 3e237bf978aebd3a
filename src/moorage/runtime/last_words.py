"""How a process of the server says that it cannot start, and never will as things are.

A child ends with status EX_CONFIG (78, sysexits.h) and has written one sentence to the pipe that its parent gave it:
a pipe works when the disk is full. The parent does not start it again.
"""

import os
from contextlib import suppress

PIPE = "MOORAGE_LAST_WORDS_FD"
"""The variable that holds the descriptor of the pipe."""

LONGEST = 4096
"""Bytes. What is not longer, a pipe takes at once and whole (PIPE_BUF of Linux)."""


class CannotServe(Exception):
    """The server cannot start; the text says why and what to do."""


def leave(sentence: str) -> int:
    """Write the sentence for the parent; the status to exit with."""
    with suppress(OSError):  # a parent that is gone needs no words
        os.write(int(os.environ[PIPE]), sentence.encode()[:LONGEST])
    return os.EX_CONFIG
