"""Bytes that arrive piece by piece and are wanted whole."""

_TINY = 4096


class Pieces:
    """Collects pieces. Tiny ones are gathered: as objects they would weigh many times what they hold."""

    __slots__ = ("_parts", "size")

    def __init__(self) -> None:
        self._parts: list[bytes | bytearray] = []
        self.size = 0

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        parts = self._parts
        if not parts or len(piece) >= _TINY:
            parts.append(piece)
        elif isinstance(parts[-1], bytearray):
            parts[-1] += piece
        else:
            parts.append(bytearray(piece))

    def peek(self) -> bytes:
        """All of them in one, still collected here."""
        whole = b"".join(self._parts)
        self._parts = [whole]
        return whole

    def take(self) -> bytes:
        """All of them in one; what is collected here is given up."""
        parts, self._parts = self._parts, []
        if len(parts) == 1 and isinstance(parts[0], bytes):
            return parts[0]
        return b"".join(parts)
