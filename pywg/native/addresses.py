"""pywg_endpoint as socket addresses and back. Both ways are remembered: most packets go to, and
come from, the same few addresses.

Knows no packet. Invariant: what is remembered is bounded.
"""

from __future__ import annotations

import ctypes
import socket
import struct

from pywg.native import abi

# As socket.recvfrom returns it and socket.sendto takes it.
SocketAddress = tuple[str, int] | tuple[str, int, int, int]

ENDPOINT = struct.Struct("=BBHI16s")
LENGTH = ENDPOINT.size
REMEMBERED_MAX = 4096

assert ctypes.sizeof(abi.pywg_endpoint) == LENGTH  # noqa: S101 - what ctypes says of the header


class _FromRaw(dict[bytes, SocketAddress | None]):
    def __missing__(self, raw: bytes) -> SocketAddress | None:
        family, _, port, scope_id, address = ENDPOINT.unpack(raw)
        found: SocketAddress | None = None
        if family == 4:
            found = socket.inet_ntop(socket.AF_INET, address[:4]), port
        elif family == 6:
            found = socket.inet_ntop(socket.AF_INET6, address), port, 0, scope_id
        if len(self) >= REMEMBERED_MAX:
            self.clear()
        self[raw] = found
        return found


class _ToRaw(dict[SocketAddress, bytes]):
    def __missing__(self, address: SocketAddress) -> bytes:
        raw = _pack(address)
        if len(self) >= REMEMBERED_MAX:
            self.clear()
        self[address] = raw
        return raw


#: ``FROM_RAW[raw]``: the address of 24 bytes, None where they hold none.
FROM_RAW = _FromRaw()
#: ``TO_RAW[address]``: its 24 bytes; ValueError or TypeError says what is no address.
TO_RAW = _ToRaw()


def _pack(address: SocketAddress) -> bytes:
    if not isinstance(address, tuple) or len(address) not in (2, 4):
        raise TypeError(f"an address is (host, port) or (host, port, flow, scope), not {address!r}")
    host, port = address[0], address[1]
    if not isinstance(host, str):
        raise TypeError(f"the host of an address is a str, not {type(host).__name__}")
    _expect_within(port, 0xFFFF, "port")
    host, _, zone = host.partition("%")
    scope_id = address[3] if len(address) == 4 else _zone(zone)
    _expect_within(scope_id, 0xFFFFFFFF, "scope")
    family, number = (socket.AF_INET6, 6) if ":" in host else (socket.AF_INET, 4)
    try:
        raw = socket.inet_pton(family, host)
    except OSError:
        raise ValueError(f'"{host}" is no IP address') from None
    return ENDPOINT.pack(number, 0, port, scope_id, raw)


def _zone(text: str) -> int:
    if not text:
        return 0
    if not text.isdecimal():
        raise ValueError(f'the zone "{text}" is no number: socket.if_nametoindex knows it')
    return int(text)


def _expect_within(value: int, maximum: int, noun: str) -> None:
    if not isinstance(value, int):
        raise TypeError(f"the {noun} of an address is an int, not {type(value).__name__}")
    if not 0 <= value <= maximum:
        raise ValueError(f"the {noun} of an address is 0 to {maximum}, not {value}")
