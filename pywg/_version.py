"""Versions: of the package as installed, and of the core as loaded."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from pywg.native import library


def _package_version() -> str:
    try:
        return metadata.version("pywg-tunnel")
    except metadata.PackageNotFoundError:
        return _checkout_version()


def _checkout_version() -> str:
    """In a checkout that was never installed: build.zig.zon, where the version is written."""
    zon = Path(__file__).resolve().parent.parent / "build.zig.zon"
    try:
        found = re.search(r'\.version = "([^"]+)"', zon.read_text(encoding="utf-8"))
    except OSError:
        found = None
    return found.group(1) if found else "0"


__version__ = _package_version()


def core_version() -> str:
    """The version compiled into libpywg.so."""
    return str(library.load().pywg_version(), "ascii")


def cipher_path() -> str:
    """The AEAD path the core picked for this CPU, for example "x86-64-v3"."""
    return str(library.load().pywg_cipher_path(), "ascii")
