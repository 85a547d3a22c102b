"""rtnetlink(7): a socket, and messages to bytes and back. Knows nothing of tunnels.

Without pyroute2, which takes a third of a second to import and then a third of a millisecond for
each message: a tunnel may have fifteen thousand routes, and its host a million. The kernel is asked
for what is wanted and no more (strict check, Linux 4.20); an older one tells everything, so what
comes is looked at again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Self

NEW_LINK, DEL_LINK, GET_LINK = 16, 17, 18
NEW_ADDRESS, DEL_ADDRESS, GET_ADDRESS = 20, 21, 22
NEW_ROUTE, DEL_ROUTE, GET_ROUTE = 24, 25, 26
NEW_RULE, DEL_RULE, GET_RULE = 32, 33, 34
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300  # NLM_F_
EXCLUSIVELY = 0x600  # NLM_F_CREATE | NLM_F_EXCL
ALSO_INSTEAD = 0x500  # NLM_F_CREATE | NLM_F_REPLACE
_MULTI, _INTERRUPTED = 0x2, 0x10  # NLM_F_MULTI, NLM_F_DUMP_INTR
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
_SOL_NETLINK, _CAP_ACK, _GET_STRICT_CHECK = 270, 10, 12
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_KIND = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_BUFFER = 1 << 16
# A change may come in between again and again, but not for ever.
_DUMP_ATTEMPTS = 8

Attributes = dict[int, bytes]


class Socket:
    """For the length of a with block, in the network namespace of the thread that made it. What the
    kernel refuses is an OSError."""

    def __init__(self) -> None:
        self._serial = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        for option in (_GET_STRICT_CHECK, _CAP_ACK):
            with contextlib.suppress(OSError):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def tell(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Has the kernel do something, and waits until it is done."""
        for _ in self._answers(kind, body, _REQUEST | _ACK | flags):
            pass

    def ask(self, kind: int, body: bytes) -> bytes:
        """One answer."""
        return next(body for _, body in self._answers(kind, body, _REQUEST))

    def dump(self, kind: int, body: bytes, wanted: Callable[[bytes], bool]) -> list[bytes]:
        """All answers that are ``wanted``, of one moment."""
        for _ in range(_DUMP_ATTEMPTS):
            is_whole, found = True, []
            for flags, answer in self._answers(kind, body, _REQUEST | _DUMP):
                is_whole = is_whole and not flags & _INTERRUPTED
                if wanted(answer):
                    found.append(answer)
            if is_whole:
                return found
        raise OSError(errno.EINTR, "it changes faster than it can be read")

    def _answers(self, kind: int, body: bytes, flags: int) -> Iterator[tuple[int, bytes]]:
        """Flags and body of each. What is left of a question that was broken off is passed by."""
        self._serial += 1
        length = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(length, kind, flags, self._serial, 0) + body)
        while True:
            for answer, said, serial, told in _messages(self._socket.recv(_BUFFER)):
                if serial != self._serial:
                    continue
                if answer in (_ERROR, _DONE):
                    _check(told)
                    return
                yield said, told
                if not said & _MULTI and not flags & _ACK:
                    return


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, serial number and body."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, serial, _ = _HEADER.unpack_from(data, at)
        yield kind, flags, serial, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _check(body: bytes) -> None:
    code = -int.from_bytes(body[:4], sys.byteorder, signed=True)
    if code:
        raise OSError(code, os.strerror(code))


# ---- attributes


def attribute(kind: int, value: bytes | int) -> bytes:
    """A number is of 32 bits."""
    raw = struct.pack("=I", value) if isinstance(value, int) else value
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(raw), kind) + raw + bytes(-len(raw) % 4)


def attributes(body: bytes, start: int = 0) -> Attributes:
    """Those behind a header of ``start`` bytes."""
    found = {}
    at, end = start, len(body)
    while at + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _KIND] = body[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found


def number(raw: bytes | None) -> int:
    """0 where there is none."""
    return int.from_bytes(raw or b"", sys.byteorder)
