"""inotify(7), for which Python has no module: which files of which folders were changed.

Knows no reason to look; who is told looks for himself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from pathlib import Path

_EVENT = struct.Struct("=iIII")  # struct inotify_event
_BUFFER = 1 << 16
# IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF
FINISHED = 0x8 | 0x40 | 0x80 | 0x200 | 0x400 | 0x800
# IN_ATTRIB and IN_CREATE: also while a file is being written.
ALL = FINISHED | 0x4 | 0x100


class Notifier:
    """From the moment on at which a path is added."""

    def __init__(self, events: int = ALL) -> None:
        self._events = events
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._names: dict[int, bytes] = {}  # of watched files; a folder tells names itself
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def fileno(self) -> int:
        return int(self._fd)

    def add(self, path: Path) -> None:
        """Again and again is once. What is not there cannot be watched; its folder can."""
        number = self._libc.inotify_add_watch(self._fd, os.fsencode(path), self._events)
        if number >= 0:
            self._names[number] = b"" if path.is_dir() else os.fsencode(path.name)

    def drain(self) -> set[bytes]:
        """The names of what was changed; an empty one where some were lost."""
        found = set()
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._fd, _BUFFER):
                at = 0
                while at < len(data):
                    number, _, _, length = _EVENT.unpack_from(data, at)
                    at += _EVENT.size + length
                    name = data[at - length : at].rstrip(b"\0")
                    found.add(name or self._names.get(number, b""))
        return found

    def close(self) -> None:
        os.close(self._fd)
