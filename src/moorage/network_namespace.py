"""Network namespaces of instances, and sockets in them.

An instance that has a network of its own listens on its own loopback interface, which no other process reaches: not a
neighbour, not a user of the machine. A process of ours with the capability CAP_SYS_ADMIN makes a socket there by
entering the namespace for the length of one system call. A socket stays in the namespace that it was made in, so
everything after that is as for any other socket, at the speed of the loopback interface.

A namespace is named by a process in it, as `<pid>/<start time>`: a pid alone could be given to another process, and
its namespace would be another instance's. Nothing keeps a namespace but its processes, so a `kill -9` of everything
leaves none behind.

A server that is not root has a process that keeps the instances' networks in a user namespace, where it has that
capability (`moorage.outbound.keeper`). Whoever wants a socket asks it for one; such a network is named
`<key>@<path of that process's socket>`.
"""

import asyncio
import ctypes
import errno
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

CLONE_NEWNET: Final = 0x40000000
CLONE_NEWUSER: Final = 0x10000000
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_START_TIME: Final = 19
"""The field of `/proc/<pid>/stat`, counted from the state."""


def reference(pid: int) -> str:
    """The name of the network namespace of a living process.

    Raises:
        OSError: there is no such process.
    """
    directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return f"{pid}/{_start_time(directory)}"
    finally:
        os.close(directory)


def open_namespace(name: str) -> int:
    """A descriptor of the network namespace that `reference` named. The caller closes it.

    Raises:
        OSError: that process is gone; ECONNREFUSED, since nobody listens there any more.
    """
    pid, _, start_time = name.partition("/")
    try:
        # Whatever is opened below this directory is that process's, even if its pid is given to another one.
        directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _start_time(directory) != start_time:
                raise ProcessLookupError
            return os.open("ns/net", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        finally:
            os.close(directory)
    except (FileNotFoundError, ProcessLookupError):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "the instance's network is gone") from None


async def open_socket(name: str, family: int = socket.AF_INET) -> socket.socket:
    """A new non-blocking TCP socket in that network, whoever keeps it.

    Raises:
        OSError: the network is gone, or nobody lets us in.
    """
    key, kept, keeper = name.partition("@")
    return await _ask_for_socket(keeper, key, family) if kept else socket_in(name, family)


def socket_in(name: str, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A new non-blocking socket in that namespace.

    Raises:
        OSError: the namespace is gone, or we may not enter it.
    """
    descriptor = open_namespace(name)
    try:
        with entered(descriptor):
            sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    finally:
        os.close(descriptor)
    return sock


@contextmanager
def entered(descriptor: int) -> Iterator[None]:
    """The calling thread is in that namespace until the block ends. Do not await in it."""
    own = namespace_of_thread()
    try:
        _set_namespace(descriptor)
        try:
            yield
        finally:
            _return_to(own)
    finally:
        os.close(own)


@contextmanager
def new_namespace() -> Iterator[None]:
    """The calling thread is in a new network namespace, whose loopback interface is up, until the block ends.

    A process that is started in the block is in the namespace; without one the namespace ends with the block. Do not
    await in it.

    Raises:
        OSError: none may be made here.
    """
    own = namespace_of_thread()
    try:
        enter_new_namespace()
        try:
            yield
        finally:
            _return_to(own)
    finally:
        os.close(own)


def enter_new_namespace() -> None:
    """The calling thread is in a new network namespace from now on. Its loopback interface is up.

    Raises:
        OSError: none may be made here.
    """
    if _libc().unshare(CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def enter_new_user_namespace() -> None:
    """This process, which has no threads yet, has every capability over what it makes from now on. Its user and group
    keep their numbers.

    Raises:
        OSError: this machine does not let users make namespaces.
    """
    uid, gid = os.geteuid(), os.getegid()
    if _libc().unshare(CLONE_NEWUSER) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    for file, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        Path("/proc/self", file).write_text(text)


def why_unusable() -> str | None:
    """Why this process cannot give instances networks of their own; None if it can."""
    try:
        with new_namespace():
            pass
    except OSError as error:
        if os.geteuid() != 0:
            return "only root can make network namespaces and reach into them"
        return f"no network namespace can be made ({error.strerror})"
    return None


async def _ask_for_socket(keeper: str, key: str, family: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as asking:
        await loop.sock_connect(asking, keeper)
        await loop.sock_sendall(asking, f"socket {key} {family}".encode())
        reply, descriptors = await receive_descriptors(asking, 1)
    if not descriptors:
        raise ConnectionRefusedError(
            errno.ECONNREFUSED, reply.decode() or "the process that keeps it went away"
        )
    return socket.socket(fileno=descriptors[0])


async def receive_descriptors(sock: socket.socket, count: int) -> tuple[bytes, list[int]]:
    """The next message of a non-blocking Unix socket, and the descriptors that come with it."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(sock.fileno(), readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(sock.fileno())
    message, descriptors, _, _ = socket.recv_fds(sock, 4096, count, socket.MSG_CMSG_CLOEXEC)
    return message, descriptors


def _start_time(directory: int) -> str:
    descriptor = os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        stat = os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
    return stat[stat.rindex(b")") + 2 :].split()[_START_TIME].decode()


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def namespace_of_thread() -> int:
    """A descriptor of the namespace that the calling thread is in. The caller closes it."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _set_namespace(descriptor: int) -> None:
    if _libc().setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _return_to(own: int) -> None:
    try:
        _set_namespace(own)
    except OSError as error:
        # To go on in an instance's network would hand it whatever is connected or listened to next.
        print(f"cannot leave a network namespace: {error.strerror}", file=sys.stderr)
        os._exit(os.EX_OSERR)
