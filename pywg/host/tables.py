"""Which routing tables have routes. By rtnetlink(7) itself: the kernel is asked for the table, and
the first message of its answer is enough. pyroute2 would read, and decode, all of a million routes.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection

from pywg.errors import NetworkError

_GET_STRICT_CHECK, _SOL_NETLINK = 12, 270
_GET_ROUTE = 26  # RTM_GETROUTE
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_TABLE = 15  # RTA_TABLE
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_ATTRIBUTE = struct.Struct("=HHI")  # struct rtattr and a number
_BUFFER = 1 << 16


def used_from(first: int, promised: Collection[int] = ()) -> frozenset[int]:
    """Of the tables from ``first`` on, those next to each other that have routes, in either family,
    or are ``promised`` to somebody. Raises NetworkError."""
    table = first
    while table in promised or any(
        _has_routes(table, family) for family in (socket.AF_INET, socket.AF_INET6)
    ):
        table += 1
    return frozenset(range(first, table))


def _has_routes(table: int, family: int) -> bool:
    body = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0) + _ATTRIBUTE.pack(8, _TABLE, table)
    request = _HEADER.pack(_HEADER.size + len(body), _GET_ROUTE, _REQUEST_DUMP, 1, 0) + body
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
            # Linux 4.20; without it the kernel ignores which table is meant.
            kernel.setsockopt(_SOL_NETLINK, _GET_STRICT_CHECK, 1)
            kernel.send(request)
            answer = kernel.recv(_BUFFER)
    except OSError as error:
        code = error.errno or 0
    else:
        _, kind, *_ = _HEADER.unpack_from(answer)
        code = -struct.unpack_from("=i", answer, _HEADER.size)[0] if kind in (_ERROR, _DONE) else 0
        if code in (0, errno.ENOENT):  # one that was never used is no table
            return kind not in (_ERROR, _DONE)
    if code == errno.EAFNOSUPPORT:
        return False
    raise NetworkError(f"ip route show table {table}: {os.strerror(code)}", code)
