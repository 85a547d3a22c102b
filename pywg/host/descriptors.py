"""What a process has open that it did not open itself."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable


def close_others(keep: Iterable[int]) -> None:
    """All but the standard three and these."""
    last = 2
    for fd in sorted({*keep, 1 << 20}):
        if fd > last:
            os.closerange(last + 1, fd)
            last = fd


_SYS_PIDFD_GETFD = 438  # the same for every architecture that we run on


def borrowed(process: int, fd: int) -> int | None:
    """A descriptor for what ``process`` has open as ``fd``; to be closed by the caller. None where
    the kernel (before 5.6) or its rules refuse: to look into a process that forbids core dumps
    takes CAP_SYS_PTRACE."""
    try:
        pidfd = os.pidfd_open(process)
    except OSError:
        return None
    try:
        found = int(ctypes.CDLL(None).syscall(_SYS_PIDFD_GETFD, pidfd, fd, 0))
    finally:
        os.close(pidfd)
    return found if found >= 0 else None
