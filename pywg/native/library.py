"""Finds and loads libpywg.so, and refuses one with another ABI.

Knows where the file may be, not what is in it. The library is loaded once, at first use.
"""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

from pywg.errors import CoreLoadError

ABI_VERSION = 1
FILE_NAME = "libpywg.so"

_PACKAGE = Path(__file__).resolve().parents[1]
_HOW_TO_BUILD = "build it with `pip install -e .` in a checkout, or reinstall pywg-tunnel"


def candidates() -> list[Path]:
    """Where the library may be, best first. PYWG_CORE leaves no choice."""
    forced = os.environ.get("PYWG_CORE")
    if forced:
        return [Path(forced).absolute()]  # without a slash the loader would look elsewhere
    return [_PACKAGE / "_native" / FILE_NAME, _PACKAGE.parent / "zig-out" / "lib" / FILE_NAME]


def find() -> Path:
    """The first candidate that exists."""
    paths = candidates()
    for path in paths:
        if path.is_file():
            return path
    looked = " or ".join(str(path) for path in paths)
    raise CoreLoadError(f"the compiled core is missing: no {looked}; {_HOW_TO_BUILD}")


@functools.cache
def load() -> ctypes.CDLL:
    """The loaded library with all declarations of pywg.h applied."""
    from pywg.native import abi

    path = find()
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise CoreLoadError(f"cannot load {path}: {error}; {_HOW_TO_BUILD}") from None
    check_version(library, path)
    try:
        abi.declare(library)
    except AttributeError as error:
        raise CoreLoadError(f"{path} is incomplete: {error}; {_HOW_TO_BUILD}") from None
    forced = os.environ.get("PYWG_CPU")
    if forced:
        library.pywg_cipher_select(forced.encode())
    return library


def check_version(library: ctypes.CDLL, path: Path) -> None:
    """Refuses a library that speaks another ABI than this package."""
    try:
        abi_version = library.pywg_abi_version
    except AttributeError:
        raise CoreLoadError(f"{path} is not a pywg core; {_HOW_TO_BUILD}") from None
    abi_version.argtypes = []
    abi_version.restype = ctypes.c_uint32
    found = abi_version()
    if found != ABI_VERSION:
        raise CoreLoadError(
            f"{path} has ABI {found}, this package needs ABI {ABI_VERSION}; {_HOW_TO_BUILD}"
        )
