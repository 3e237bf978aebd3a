"""Lists of the pieces in which a body arrives."""

TINY = 4096
"""Pieces of fewer bytes are worth gathering."""

_LARGEST = 64 * 1024


def gather(pieces: list[bytes | bytearray]) -> None:
    """Melt the last of several pieces into the one before it, up to a size; as objects, tiny ones weigh far more than
    they hold."""
    last = pieces.pop()
    if isinstance(pieces[-1], bytearray) and len(pieces[-1]) < _LARGEST:
        pieces[-1] += last
    else:
        pieces.append(bytearray(last))
