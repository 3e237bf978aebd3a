"""What containers, callers and servers have written, on its way to a terminal or a pipe.

A terminal is shown control characters spelt out, since it would obey them; a pipe gets every byte as it is. JSON
needs nothing of this: `json.dumps` spells them out itself.
"""

import codecs
import sys
from typing import TextIO

from rich import markup

from moorage import control_characters


def escape(text: str) -> str:
    """The text as rich shows it: neither markup nor control characters in it mean anything."""
    return markup.escape(control_characters.escape(text))


def say(text: str, *, file: TextIO | None = None, raw: bool = False) -> None:
    """Print text and a newline to `file`, stdout if it is None. `raw`: as it is, though it be a terminal."""
    file = sys.stdout if file is None else file
    if file.isatty() and not raw:
        text = control_characters.escape(text)
    print(text, file=file, flush=True)


class ResultWriter:
    """Writes the bytes of a result to stdout as they come. On a terminal, unless `raw`, they are shown as text."""

    def __init__(self, *, raw: bool = False) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._decoder = None
        if self._is_terminal and not raw:
            self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._ends_a_line = False

    def write(self, data: bytes) -> None:
        if data:
            self._ends_a_line = data.endswith(b"\n")
        if self._decoder is None:
            sys.stdout.buffer.write(data)
        else:
            sys.stdout.write(control_characters.escape(self._decoder.decode(data)))
        sys.stdout.flush()

    def end(self) -> None:
        """The result is complete. A terminal's next line is begun."""
        if self._decoder is not None:
            sys.stdout.write(control_characters.escape(self._decoder.decode(b"", final=True)))
        if self._is_terminal and not self._ends_a_line:
            print()
        sys.stdout.flush()
