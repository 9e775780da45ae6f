"""Runs a program on a disk that fails: `python bad_disk.py io-error|full UID GID PROGRAM ...`. Linux alone.

A filter of the kernel's (seccomp) answers the system calls in the place of the disk, for the program and all of its
children. It needs no right and no tool, and unlike a program that traces, it makes nothing slower. `io-error`: whatever
is to be made durable (`fsync`, `fdatasync`) fails with EIO. `full`: no file can grow beyond two megabytes (ENOSPC).
The program runs as that user, unless it is -1.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys

FULL_FROM_BYTES = 2 * 2**20

#: Numbers of system calls by processor: fsync, fdatasync, pwrite64, pwritev, fallocate.
_NUMBERS = {"x86_64": (74, 75, 18, 296, 285), "aarch64": (82, 83, 68, 70, 47)}
#: Instructions of the classic Berkeley packet filter, and what a filter of seccomp may answer (linux/seccomp.h).
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_FAIL_WITH, _ALLOW = 0x00050000, 0x7FFF0000
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("k", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def _filter(fault: str) -> list[tuple[int, int, int, int]]:
    fsync, fdatasync, pwrite, pwritev, fallocate = _NUMBERS[platform.machine()]
    if fault == "io-error":
        return [
            (_LOAD, 0, 0, 0),
            (_JUMP_IF_EQUAL, 1, 0, fsync),
            (_JUMP_IF_EQUAL, 0, 1, fdatasync),
            (_RETURN, 0, 0, _FAIL_WITH | errno.EIO),
            (_RETURN, 0, 0, _ALLOW),
        ]
    # The offset is the fourth argument of the writing calls, and the third of `fallocate`.
    return [
        (_LOAD, 0, 0, 0),
        (_JUMP_IF_EQUAL, 3, 0, pwrite),
        (_JUMP_IF_EQUAL, 2, 0, pwritev),
        (_JUMP_IF_EQUAL, 3, 0, fallocate),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _argument(3)),
        (_JUMP_IF_AT_LEAST, 2, 3, FULL_FROM_BYTES),
        (_LOAD, 0, 0, _argument(2)),
        (_JUMP_IF_AT_LEAST, 0, 1, FULL_FROM_BYTES),
        (_RETURN, 0, 0, _FAIL_WITH | errno.ENOSPC),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _argument(number: int) -> int:
    """Where the lower half of an argument stands in what a filter sees, on a little-endian machine."""
    return 16 + 8 * number


def main(fault: str, uid: int, gid: int, command: list[str]) -> None:
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    instructions = _filter(fault)
    block = (_Instruction * len(instructions))(*(_Instruction(*each) for each in instructions))
    program = _Program(len(instructions), block)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        sys.exit(f"This kernel takes no seccomp filter: {os.strerror(ctypes.get_errno())}")
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
