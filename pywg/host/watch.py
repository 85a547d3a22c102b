"""Waits for what others change on this host: links, addresses, routes, rules, firewall, files.

By notifications of the kernel, netlink(7) and inotify(7): nothing is polled. Only what can concern
one interface is passed on, and no message is kept: whoever is told looks for himself. Read without
pyroute2, so that a process that hosts a tunnel stays small until there is something to do.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
from collections.abc import Iterable, Iterator
from enum import Flag, auto
from pathlib import Path
from typing import Self

from pywg.errors import system_call
from pywg.host.inotify import Notifier

_NETFILTER = 12  # NETLINK_NETFILTER
_NFTABLES = 7  # NFNLGRP_NFTABLES
_ADD_MEMBERSHIP, _SOL_NETLINK = 1, 270
# RTNLGRP_LINK; IPv4 addresses, routes and rules; IPv6 addresses, routes and rules.
_GROUPS = (1, 5, 7, 8, 9, 11, 19)
_NEW_LINK, _NEW_ADDRESS, _DEL_ADDRESS, _NEW_ROUTE, _DEL_ROUTE, _DEL_RULE = 16, 20, 21, 24, 25, 33
_OUTPUT_INTERFACE = 4  # RTA_OIF
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_SIOCGIFFLAGS, _IFF_POINTOPOINT = 0x8913, 0x10
_ROUTE_LENGTH = 12  # struct rtmsg
_BUFFER = 1 << 16


class Change(Flag):
    """What may have changed."""

    NOTHING = 0
    OURS = auto()  # something of the interface, a rule, or the firewall
    AROUND = auto()  # an address of this host, or a default route of its main table
    FILES = auto()  # one of those that are watched


class Watch:
    """For an interface, which may be yet to come, and some files; from the moment it is made, in
    the network namespace of this thread. Of ``places`` only the folder is watched: to watch a
    network namespace itself would keep it from going."""

    def __init__(self, name: str, files: Iterable[Path], places: Iterable[Path] = ()) -> None:
        self._name = name
        self._files = list(files)
        self._places = list(places)
        try:
            self._routes = _listening(socket.NETLINK_ROUTE, _GROUPS)
            self._firewall = _listening(_NETFILTER, (_NFTABLES,))
            self._notifier = Notifier()
        except OSError as error:
            raise system_call(error, "cannot watch this host") from None
        self._watch_files()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for source in (self._routes, self._firewall):
            if source is not None:
                source.close()
        self._notifier.close()

    def wait(self, timeout_s: float | None = None) -> Change:
        """Sleeps until something may have changed, or for so long."""
        routes, firewall = self._routes, self._firewall
        sources = [source for source in (routes, firewall) if source is not None]
        watched: list[socket.socket | Notifier] = [*sources, self._notifier]
        ready = select.select(watched, [], [], timeout_s)[0]
        found = Change.NOTHING
        if routes in ready:
            found |= self._read_routes()
        if firewall in ready and list(_datagrams(firewall)):
            found |= Change.OURS
        if self._notifier in ready:
            found |= self._read_files()
        return found

    def _watch_files(self) -> None:
        """The folders, since a file may be replaced; and the files, since one may be a mount."""
        for file in self._files:
            for place in {file, file.parent, file.resolve(), file.resolve().parent}:
                self._notifier.add(place)
        for place in self._places:
            self._notifier.add(place.parent)

    def _read_files(self) -> Change:
        changed = self._notifier.drain()
        names = {place.name for file in self._files for place in (file, file.resolve())}
        names |= {place.name for place in self._places}
        self._watch_files()
        return Change.FILES if changed & set(map(os.fsencode, names)) else Change.NOTHING

    def _read_routes(self) -> Change:
        found = Change.NOTHING
        for data in _datagrams(self._routes):
            if data is None:
                return Change.OURS | Change.AROUND  # some were lost
            for kind, body in _messages(data):
                found |= self._meaning(kind, body)
        return found

    def _index(self) -> int:
        try:
            return socket.if_nametoindex(self._name)
        except OSError:
            return 0

    def _meaning(self, kind: int, body: bytes) -> Change:
        if kind in (_NEW_LINK, _NEW_ADDRESS, _DEL_ADDRESS):
            (index,) = struct.unpack_from("=i", body, 4)
            if index == self._index():
                return Change.NOTHING if kind == _NEW_ADDRESS else Change.OURS
            is_no_way = kind == _NEW_LINK or _is_point_to_point(index)
            return Change.NOTHING if is_no_way else Change.AROUND
        if kind == _DEL_RULE:
            return Change.OURS
        if kind == _DEL_ROUTE and _output_of(body) in (self._index(), None):
            return Change.OURS
        if kind in (_NEW_ROUTE, _DEL_ROUTE) and _is_default(body):
            return Change.AROUND
        return Change.NOTHING


def _listening(protocol: int, groups: Iterable[int]) -> socket.socket | None:
    """None where this kernel has no such notifications."""
    source = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    try:
        source.bind((0, 0))
        for group in groups:
            source.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    except OSError:
        source.close()
        return None
    return source


def _datagrams(source: socket.socket | None) -> Iterator[bytes | None]:
    """All that wait; None where some were lost."""
    while source is not None:
        try:
            yield source.recv(_BUFFER)
        except BlockingIOError:
            return
        except OSError as error:
            yield None
            if error.errno != errno.ENOBUFS:
                return


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _is_point_to_point(index: int) -> bool:
    """Of what has no neighbours, as another tunnel, only its routes are a way for us. What is gone
    counts as what it may have been."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            request = struct.pack("16s24x", socket.if_indextoname(index).encode())
            answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request)
    except OSError:
        return False
    return bool(struct.unpack_from("=H", answer, 16)[0] & _IFF_POINTOPOINT)


def _output_of(body: bytes) -> int | None:
    """The interface of a route; None for one without, such as an unreachable one."""
    at = _ROUTE_LENGTH
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if kind == _OUTPUT_INTERFACE:
            return int(struct.unpack_from("=i", body, at + _ATTRIBUTE.size)[0])
        if length < _ATTRIBUTE.size:
            return None
        at += (length + 3) & ~3
    return None


def _is_default(body: bytes) -> bool:
    """Of the main table: prefix length 0, table 254."""
    return body[1] == 0 and body[4] == 254
