"""pywg --version: what runs here, in the lines that belong into a report of a bug."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig

import click

from pywg._version import __version__, cipher_path, core_version
from pywg.errors import CoreLoadError


def text() -> str:
    """The first line is for programs: ``pywg`` and the version. The others are for people."""
    lines = [
        f"pywg {__version__}",
        *_core(),
        f"target  {target()}, Linux {os.uname().release}",
        f"Python  {platform.python_version()} ({sys.executable}), click {_click()}",
    ]
    return "\n".join(lines)


def _core() -> list[str]:
    """Of the core as loaded; without one, why."""
    from pywg.native import library

    try:
        where = library.find()
        return [f"core    {core_version()} ({where})", f"cipher  {cipher_path()}"]
    except CoreLoadError as error:
        return [f"core    {error}"]


def target() -> str:
    """Architecture, system and C library, such as x86_64-linux-gnu."""
    machine, libc = os.uname().machine, platform.libc_ver()[0]
    known = sysconfig.get_config_var("MULTIARCH")
    if known:
        return str(known)
    return f"{machine}-linux-{'gnu' if libc == 'glibc' else libc or 'musl'}"


def _click() -> str:
    from importlib.metadata import version

    return version(click.__name__)
