"""The AEAD's kernels and both forms of Poly1305 in this process: core/cipher/testing.zig as a
shared library, in ctypes."""

from __future__ import annotations

import ctypes
from pathlib import Path


class Seal(ctypes.Structure):
    _fields_ = (
        ("source", ctypes.c_void_p),
        ("destination", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
    )


class Open(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("counter", ctypes.c_uint64),
        ("authentic", ctypes.c_bool),
    )


def load(path: Path) -> ctypes.CDLL:
    """`Builder.shared_library("cipher_testing")` with the types of its functions."""
    library = ctypes.CDLL(str(path))
    library.pywg_test_select.argtypes = [ctypes.c_char_p]
    library.pywg_test_select.restype = ctypes.c_bool
    library.pywg_test_path.restype = ctypes.c_char_p
    library.pywg_test_seal_batch.argtypes = [
        ctypes.c_char_p,
        ctypes.c_uint64,
        ctypes.c_void_p,
        ctypes.c_size_t,
    ]
    library.pywg_test_seal_batch.restype = None
    library.pywg_test_open_batch.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t]
    library.pywg_test_open_batch.restype = None
    library.pywg_test_poly1305.argtypes = [
        ctypes.c_uint32,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_char_p,
    ]
    library.pywg_test_poly1305.restype = None
    return library
