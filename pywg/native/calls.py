"""What calls of the core have in common: diagnostics, errors, texts of unknown length."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from pywg.errors import DeviceError, Status
from pywg.native import abi


def read_text(function: Callable[..., int], handle: ctypes.c_void_p, subject: str) -> str:
    """Calls a function that fills (buffer, capacity, *length), with room as it asks for."""
    capacity = 1 << 14
    while True:
        buffer = ctypes.create_string_buffer(capacity)
        length = ctypes.c_size_t()
        status = function(handle, buffer, capacity, ctypes.byref(length))
        if status != Status.BUFFER_TOO_SMALL:
            break
        capacity = max(length.value, capacity) + 4096  # it may have grown before the next call
    check(status, None, subject)
    text = buffer.raw[: length.value].decode("utf-8", errors="replace")
    ctypes.memset(buffer, 0, capacity)  # it may hold keys
    return text


def new_diagnostic() -> abi.pywg_diagnostic:
    return abi.pywg_diagnostic(size=ctypes.sizeof(abi.pywg_diagnostic))


def check(status: int, diagnostic: abi.pywg_diagnostic | None, subject: str) -> None:
    """Raises what a status other than OK means."""
    if status == Status.OK:
        return
    if diagnostic is None:
        raise DeviceError.explain(status, subject=subject)
    text = diagnostic.text.decode("utf-8", errors="replace")
    raise DeviceError.explain(status, diagnostic.os_errno, text, subject)
