"""Text that others wrote, made harmless for terminals and for logs of one line per entry.

A terminal obeys control characters: they set its title, fill the clipboard, and hide or replace what was shown.
Bidirectional controls show text in another order than it has ("Trojan Source", CVE-2021-42574), and line separators
make two lines of one.
"""

import re
from functools import lru_cache
from typing import Final

_DANGEROUS: Final = (
    "\x00-\x1f\x7f-\x9f"  # C0, DEL and C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional controls
    "\u2028\u2029"  # line and paragraph separators
    "\ud800-\udfff"  # halves of surrogate pairs, which cannot be written as UTF-8
)
_NAMES: Final = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}

_SEQUENCES: Final = re.compile(
    # ECMA-48: control sequences, strings (of OSC, DCS, SOS, PM and APC) up to their end, and other escape sequences.
    # A string stops at whatever may begin another one, so that each character is looked at a few times at most.
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90\x98\x9c-\x9f]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"
)


def escape(text: str, *, keep: str = "\n\t") -> str:
    r"""The text with every control character but those of `keep` spelt out: `\x1b`, `\r`, `\u202e`."""
    return _controls(keep).sub(_spelt, text)


def plain(text: str, *, keep: str = "\n\t") -> str:
    """The text without terminals' escape sequences, such as colours, and without control characters but `keep`."""
    return _controls(keep).sub("", _SEQUENCES.sub("", text))


@lru_cache(maxsize=8)
def _controls(keep: str) -> re.Pattern[str]:
    excepted = f"(?![{re.escape(keep)}])" if keep else ""
    return re.compile(f"{excepted}[{_DANGEROUS}]")


def _spelt(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    # From DEL on as JSON spells it, so that JSON stays JSON.
    return _NAMES.get(character) or (f"\\x{code:02x}" if code < 0x20 else f"\\u{code:04x}")
