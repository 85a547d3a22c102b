"""What a process that hosts a tunnel gives up once it is open (capabilities(7), prctl(2)).

No seccomp filter here: an interpreter may need any file and any call. pywgd has one.
Invariant: only ever takes away.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

_NET_BIND_SERVICE, _NET_BROADCAST, _NET_ADMIN, _NET_RAW, _SYS_NICE = 10, 11, 12, 13, 23
#: As core/daemon/capabilities.zig, and SYS_NICE, for threads that are yet to become realtime.
NEEDED: Final = sum(
    1 << capability
    for capability in (_NET_BIND_SERVICE, _NET_BROADCAST, _NET_ADMIN, _NET_RAW, _SYS_NICE)
)
#: For a program that only asks the kernel for its interfaces.
NET_ADMIN: Final = 1 << _NET_ADMIN
_VERSION_3 = 0x20080522
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _CLEAR_ALL = 24, 38, 47, 4


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Half(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def keep_only(needed: int = NEEDED, *, for_programs: bool = False) -> None:
    """For this thread and those it starts later: all others are gone.

    What is executed has none, or ``for_programs`` those that are kept, as nft needs them. Where the
    kernel refuses, nothing has changed: it is a precaution and no promise.
    """
    if os.environ.get("PYWG_NO_SANDBOX") == "1":
        return
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header, halves = _Header(_VERSION_3, 0), (_Half * 2)()
    if libc.capget(ctypes.byref(header), halves) != 0:
        return
    for capability in range(64):
        if for_programs and needed >> capability & 1:
            continue
        if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break  # the kernel knows no more, or we may not
    libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    for number, half in enumerate(halves):
        mask = needed >> (32 * number) & 0xFFFFFFFF
        half.permitted &= mask
        half.effective &= mask
        half.inheritable = 0
    libc.capset(ctypes.byref(header), halves)
