"""What Python's sockets leave out."""

import contextlib
import ctypes
import socket

_NO_ADDRESS = bytes(16)  # a struct sockaddr of the family AF_UNSPEC
_libc = ctypes.CDLL(None, use_errno=True)


def reset(sock: socket.socket) -> None:
    """Ends a TCP connection at once and by a reset, which nobody takes for the end of a reply: whoever else holds
    the socket, and whatever has not been sent."""
    if _libc.connect(sock.fileno(), _NO_ADDRESS, len(_NO_ADDRESS)):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
