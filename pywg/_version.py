"""Versions: of the package, and of the core as loaded."""

from __future__ import annotations

# A test compares it with build.zig.zon, which is asked for when a wheel is made. Read from the
# metadata of the installed package it would cost more than all other imports together.
__version__ = "0.1.0"


def core_version() -> str:
    """The version compiled into libpywg.so. CoreLoadError: there is none to load."""
    from pywg.native import library

    return str(library.load().pywg_version(), "ascii")


def cipher_path() -> str:
    """The AEAD path the core picked for this CPU, for example "x86-64-v3". CoreLoadError: there is
    no core to load."""
    from pywg.native import library

    return str(library.load().pywg_cipher_path(), "ascii")
