"""Kills whatever runs in a user namespace, or in one below it.

A process can leave its session, its process group, its parent and its network namespace, but never
its user namespace. So nothing that a command left behind is missed.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from pathlib import Path

from pywg.rootless import calls

#: For all that is killed to be gone.
LIMIT_S = 2.0
# How deep user namespaces nest (user_namespaces(7)).
_DEPTH_MAX = 32

Identity = tuple[int, int]


def kill_all(namespace: int, limit_s: float = LIMIT_S) -> bool:
    """Whether all processes in the user namespace behind this descriptor, but for this one, are
    gone by then. New ones that they make meanwhile are found, too."""
    limit = time.monotonic() + limit_s
    target = _identity(namespace)
    while True:
        dying = [fd for pid in _processes() if (fd := _killed(pid, target)) is not None]
        if not dying:
            return True
        try:
            gone = _wait(dying, limit)
        finally:
            for fd in dying:
                os.close(fd)
        if not gone:
            return False


def is_in(pid: int, namespace: int) -> bool:
    """Whether a process is in the user namespace behind this descriptor, or in one below it. Raises
    OSError where that may not be seen."""
    return _is_in(pid, _identity(namespace))


def _processes() -> list[int]:
    own = os.getpid()
    numbers = [int(place.name) for place in Path("/proc").iterdir() if place.name.isdigit()]
    return [pid for pid in numbers if pid != own]


def _killed(pid: int, target: Identity) -> int | None:
    """A descriptor of the process, if it is one of those and was alive."""
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        if not has_ended(process) and _is_in(pid, target):
            signal.pidfd_send_signal(process, signal.SIGKILL)
            return process
    os.close(process)
    return None


def _is_in(pid: int, target: Identity) -> bool:
    """Whether its user namespace is this one, or below it. Raises OSError where it may not be
    seen."""
    current: int | None = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    for _ in range(_DEPTH_MAX):
        if current is None:
            return False
        try:
            if _identity(current) == target:
                return True
            above = calls.parent_namespace(current)
        finally:
            os.close(current)
        current = above
    return False


def _wait(processes: list[int], limit: float) -> bool:
    return all(has_ended(each, max(limit - time.monotonic(), 0)) for each in processes)


def has_ended(process: int, wait_s: float = 0) -> bool:
    """Whether the process behind a pidfd has ended by then. Not by select, which takes no
    descriptor above 1023: a command may leave more processes than that."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(wait_s * 1000))


def _identity(descriptor: int) -> Identity:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino
