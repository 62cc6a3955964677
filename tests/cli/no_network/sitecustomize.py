"""Forbids the network to every Python process that has this folder on PYTHONPATH, and to those that it starts.

Two nets: Python's own audit events, which also write a line into the file $HSFUSION_NETWORK_LOG; and, on Linux, a
filter of the kernel, which ends with SIGSYS any process that makes an internet socket, be it from a library in C.
"""

import ctypes
import os
import platform
import struct
import sys

_SOCKET = {"x86_64": 41, "aarch64": 198}  # number of the system call
_EVENTS = {"socket.__new__", "socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "urllib.Request"}


def _refuse(event: str, arguments: tuple) -> None:
    if event not in _EVENTS or (event == "socket.__new__" and arguments[1] == 1):  # 1: a socket file, on this machine
        return
    with open(os.environ["HSFUSION_NETWORK_LOG"], "a") as log:
        log.write(f"{event} {sys.argv}\n")
    raise PermissionError(f"{event}: no network here")


def _filter_system_calls() -> None:
    """Seccomp: struct seccomp_data holds the number of the call at byte 0 and its first argument at byte 16."""

    def step(code: int, when: int, otherwise: int, value: int) -> bytes:
        return struct.pack("<HBBI", code, when, otherwise, value)

    load, equal, end, allow, kill = 0x20, 0x15, 0x06, 0x7FFF0000, 0x80000000
    program = step(load, 0, 0, 0) + step(equal, 0, 3, _SOCKET[platform.machine()])
    program += step(load, 0, 0, 16) + step(equal, 2, 0, 2) + step(equal, 1, 0, 10)  # AF_INET, AF_INET6
    program += step(end, 0, 0, allow) + step(end, 0, 0, kill)

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))

    libc = ctypes.CDLL(None)
    libc.prctl(38, 1, 0, 0, 0)  # no new privileges, without which the next is refused
    libc.prctl(22, 2, ctypes.byref(Program(len(program) // 8, program)), 0, 0)


sys.addaudithook(_refuse)
if sys.platform == "linux" and platform.machine() in _SOCKET:
    _filter_system_calls()
