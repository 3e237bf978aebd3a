"""A system call filter for containers: they make no user namespaces, and use no kernel keys.

In a user namespace of its own a process has every capability, and with it reaches code of the kernel that is
otherwise root's alone. The filter is what container engines use by default for this: `unshare` and `clone` with
CLONE_NEWUSER answer EPERM, and `clone3`, whose flags a filter cannot see, ENOSYS, upon which libc falls back to
`clone`.

A container inherits the server's session keyring, and the kernel gives its keys to whoever has it, whatever user that
is: `add_key`, `request_key` and `keyctl` answer EPERM.
"""

import platform
import struct
from typing import Final, NamedTuple

# Of <linux/bpf_common.h> and <linux/filter.h>: classic BPF, which is what a filter is written in.
_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_IF_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_IF_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K

# Of <linux/seccomp.h>: where `struct seccomp_data` has its fields (little-endian), and what a filter returns.
_NUMBER: Final = 0
_ARCHITECTURE: Final = 4
_FIRST_ARGUMENT: Final = 16
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000

_EPERM: Final = 1
_ENOSYS: Final = 38
_CLONE_NEWUSER: Final = 0x10000000
_X32: Final = 0x40000000
"""System calls of the x32 ABI have this bit, and other numbers: none of them is let through."""
_NEVER: Final = 0xFFFFFFFF


class _Calls(NamedTuple):
    """Numbers of an architecture: itself (AUDIT_ARCH_*), its system calls, and the first number that is not its
    own."""

    architecture: int
    unshare: int
    clone: int
    clone3: int
    add_key: int
    request_key: int
    keyctl: int
    foreign: int


_CALLS: Final = {
    "x86_64": _Calls(
        architecture=0xC000003E,
        unshare=272,
        clone=56,
        clone3=435,
        add_key=248,
        request_key=249,
        keyctl=250,
        foreign=_X32,
    ),
    "aarch64": _Calls(
        architecture=0xC00000B7,
        unshare=97,
        clone=220,
        clone3=435,
        add_key=217,
        request_key=218,
        keyctl=219,
        foreign=_NEVER,
    ),
}


def container_filter(machine: str | None = None) -> bytes:
    """The filter as the kernel takes it (`struct sock_filter[]`); empty for a machine whose numbers are not known.

    A program of another architecture, such as a 32-bit one, finds no system call at all.
    """
    calls = _CALLS.get(machine or platform.machine())
    if calls is None:
        return b""
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 0, 10, calls.architecture),
        (_LOAD, 0, 0, _NUMBER),
        (_IF_AT_LEAST, 8, 0, calls.foreign),
        (_IF_EQUAL, 7, 0, calls.clone3),
        (_IF_EQUAL, 8, 0, calls.add_key),
        (_IF_EQUAL, 7, 0, calls.request_key),
        (_IF_EQUAL, 6, 0, calls.keyctl),
        (_IF_EQUAL, 1, 0, calls.unshare),
        (_IF_EQUAL, 0, 3, calls.clone),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_IF_ANY_BIT, 2, 1, _CLONE_NEWUSER),
        (_RETURN, 0, 0, _ERRNO | _ENOSYS),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | _EPERM),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
