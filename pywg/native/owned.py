"""What holds a handle of the core: it is not copied, and a forked child finds it empty.

Two that seal with the same key and counter give away what they seal. The core refuses by itself
what reaches it from a child; here it is that no lock of a thread that the child has not got keeps
it waiting for ever.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from abc import ABC, abstractmethod
from typing import NoReturn

from pywg.errors import DeviceError, Status

_owned: weakref.WeakSet[Owned] = weakref.WeakSet()


class Owned(ABC):
    """The base of what opens a handle. ``_handle`` is None before, and after closing."""

    def __init__(self, subject: str) -> None:
        self._handle: ctypes.c_void_p | None = None
        self._subject = subject
        self._was_forked = False
        self._make_locks()
        _owned.add(self)

    @abstractmethod
    def _make_locks(self) -> None:
        """All of its locks, free."""

    def _open_handle(self) -> ctypes.c_void_p:
        if self._handle is None:
            status = Status.FORKED if self._was_forked else Status.CLOSED
            raise DeviceError.explain(status, subject=self._subject)
        return self._handle

    def _leave_to_parent(self) -> None:
        """In a child: the handle is of no use here, and nobody is in a call."""
        self._was_forked = self._handle is not None or self._was_forked
        self._handle = None
        self._make_locks()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """For copy, deepcopy and pickle."""
        raise TypeError(
            f"a pywg.{type(self).__name__} cannot be copied or pickled: "
            "two would use the same keys and counters; open another one"
        )


def _after_fork_in_child() -> None:
    for owned in list(_owned):
        owned._leave_to_parent()


os.register_at_fork(after_in_child=_after_fork_in_child)
