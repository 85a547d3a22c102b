"""Network namespaces by name, as `ip netns` keeps them.

A thread is in one; what it opens, starts and reads in /proc/sys/net belongs to that one. By ctypes:
Python has os.setns from 3.12 on.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from pywg.errors import PywgError, system_call

DIRECTORY = Path("/run/netns")
_CLONE_NEWNET = 0x40000000


def enter(name: str) -> None:
    """This thread goes there, and stays."""
    descriptor = _open(name)
    try:
        enter_at(descriptor)
    finally:
        os.close(descriptor)


def enter_at(descriptor: int) -> None:
    """As enter, by a file descriptor."""
    _setns(descriptor, "to be entered")


@contextlib.contextmanager
def entered(name: str | None) -> Iterator[None]:
    """This thread is there for the length of a with block; None is where it is already."""
    if name is None:
        yield
        return
    descriptor = _open(name)
    try:
        with at(descriptor):
            yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def at(descriptor: int) -> Iterator[None]:
    """As entered, by a file descriptor."""
    home = here()
    try:
        _setns(descriptor, "to be entered")
        try:
            yield
        finally:
            _setns(home, "we came from")
    finally:
        os.close(home)


def here() -> int:
    """A file descriptor of where this thread is; the caller closes it."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def identity(process: str = "thread-self") -> int:
    """Of where this thread is, or a process: no two that are alive have the same. 0 if it cannot be
    told."""
    try:
        return Path(f"/proc/{process}/ns/net").stat().st_ino
    except OSError:
        return 0


def known_as(identity: int) -> str:
    """The name of a network namespace, or how else to find it; empty if nothing is in it."""
    for place in sorted(DIRECTORY.iterdir()) if DIRECTORY.is_dir() else ():
        with contextlib.suppress(OSError):
            if place.stat().st_ino == identity:
                return place.name
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (place / "ns" / "net").stat().st_ino == identity:
                return f"that of process {place.name}"
    return ""


def check(name: str | None) -> None:
    """Raises if there is none of this name."""
    if name is not None:
        os.close(_open(name))


def _open(name: str) -> int:
    if not name or "/" in name or name in (".", ".."):
        raise PywgError(f'"{name}" cannot name a network namespace (see: ip netns list)')
    try:
        return os.open(DIRECTORY / name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        hint = f"make it: ip netns add {name}"
        raise PywgError(f"there is no network namespace {name} ({hint})") from None
    except OSError as error:
        raise system_call(error, f"network namespace {name}") from None


def _setns(descriptor: int, which: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        error = OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        raise system_call(error, f"network namespace {which}")
