"""A mount namespace of this process's own, so that runs side by side do not meet: the folders that
every daemon of a machine shares are empty here, and go with the process."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

CLONE_NEWNS = 0x00020000
# Of mount(2).
_MS_REC, _MS_SLAVE, _MS_SHARED = 0x4000, 0x80000, 0x100000
SHARED_FOLDERS = ("/run/wireguard", "/run/pywg", "/var/lib/pywg", "/run/netns")
_libc = ctypes.CDLL(None, use_errno=True)


def seclude() -> None:
    """For the calling thread and what it starts from now on. Mounts of the machine still arrive;
    ours reach only those who seclude themselves from us. Needs root."""
    _check(_libc.unshare(CLONE_NEWNS), "unshare")
    _mount(None, "/", None, _MS_REC | _MS_SLAVE)
    _mount(None, "/", None, _MS_REC | _MS_SHARED)
    for folder in SHARED_FOLDERS:
        Path(folder).mkdir(parents=True, exist_ok=True)
        _mount("none", folder, "tmpfs", 0)


def _mount(source: str | None, target: str, kind: str | None, flags: int) -> None:
    words = [word if word is None else word.encode() for word in (source, target, kind)]
    _check(_libc.mount(*words, ctypes.c_ulong(flags), None), f"mount {target}")


def _check(answer: int, what: str) -> None:
    if answer != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
