"""UDP ASSOCIATE (RFC 1928, section 7): datagrams of one client, to and from anywhere inside."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from pywg.errors import PywgError
from pywg.proxy import socks5
from pywg.proxy.socks5 import ProtocolError, Target
from pywg.rootless import dialing
from pywg.rootless.dialing import Asked
from pywg.rootless.sockets import is_numeric

#: Names whose addresses are remembered, and names that are being looked up at the same time.
NAMES_MAX = 128
LOOK_UPS_MAX = 8
#: Datagrams of one socket before others have their turn.
_TURNS_MAX = 32
_DATAGRAM_MAX = 1 << 16
_LOOK_UP_S = 10.0

Address = tuple[Any, ...]


class Association:
    """Open until ``close``. Takes datagrams from the client's own address only; its port is the one
    that the client named, else that of its first datagram. ``moved`` is called for each."""

    def __init__(
        self, asked: Asked, control: socket.socket, port: int, moved: Callable[[], None]
    ) -> None:
        self._asked, self._moved = asked, moved
        self._loop = asyncio.get_running_loop()
        self._client_host: str = control.getpeername()[0]
        self._client: Address | None = None
        self._client_port = port
        self._inner: dict[int, socket.socket] = {}
        self._names: OrderedDict[Target, Address] = OrderedDict()
        self._tasks: dict[object, asyncio.Task[None]] = {}
        self._outer = socket.socket(control.family, socket.SOCK_DGRAM)
        try:
            self._outer.setblocking(False)
            self._outer.bind((control.getsockname()[0], 0))
        except OSError:
            self._outer.close()
            raise
        self._loop.add_reader(self._outer, self._from_client)

    @property
    def address(self) -> tuple[str, int]:
        """Where the client is to send to."""
        host, port = self._outer.getsockname()[:2]
        return host, port

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        for each in (self._outer, *self._inner.values()):
            self._loop.remove_reader(each)
            each.close()

    # ---- out

    def _from_client(self) -> None:
        for _ in range(_TURNS_MAX):
            try:
                data, sender = self._outer.recvfrom(_DATAGRAM_MAX)
            except BlockingIOError:
                return
            except OSError:  # what was sent to the client before was refused
                continue
            if self._is_client(sender):
                self._moved()
                with contextlib.suppress(ProtocolError):
                    datagram = socks5.datagram(data)
                    self._send(datagram.target, data[datagram.start :])

    def _is_client(self, sender: Address) -> bool:
        if self._client is None:
            if sender[0] != self._client_host or self._client_port not in (0, sender[1]):
                return False
            self._client = sender
        return sender == self._client

    def _send(self, target: Target, data: bytes) -> None:
        """At once if the socket is there and the address is known; else with its look-up. While one
        is under way further datagrams to the same place are lost, as datagrams may be."""
        address = (target.host, target.port) if is_numeric(target.host) else self._names.get(target)
        if address is not None:
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            inner = self._inner.get(family)
            if inner is not None:
                with contextlib.suppress(OSError):
                    inner.sendto(data, address)
                return
            self._begin(family, self._open(family, inner_data=(data, address)))
        elif len(self._tasks) < LOOK_UPS_MAX:
            self._begin(target, self._look_up(target, data))

    def _begin(self, key: object, work: Any) -> None:
        if key in self._tasks:
            work.close()
            return
        task = self._loop.create_task(work)
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    async def _open(self, family: int, inner_data: tuple[bytes, Address]) -> None:
        with contextlib.suppress(OSError, PywgError):
            inner = await dialing.make_socket(self._asked, family, socket.SOCK_DGRAM)
            self._inner[family] = inner
            self._loop.add_reader(inner, self._from_inside, inner)
            inner.sendto(*inner_data)

    async def _look_up(self, target: Target, data: bytes) -> None:
        with contextlib.suppress(OSError, PywgError):
            async with asyncio.timeout(_LOOK_UP_S):
                found = await dialing.look_up(
                    self._asked, target.host, target.port, 0, socket.SOCK_DGRAM
                )
            self._names[target] = found[0][4]
            if len(self._names) > NAMES_MAX:
                self._names.popitem(last=False)
            self._send(target, data)

    # ---- in

    def _from_inside(self, inner: socket.socket) -> None:
        for _ in range(_TURNS_MAX):
            try:
                data, sender = inner.recvfrom(_DATAGRAM_MAX)
            except BlockingIOError:
                return
            except OSError:
                continue
            if self._client is not None:
                self._moved()
                with contextlib.suppress(OSError):
                    header = socks5.datagram_header(*sender[:2])
                    self._outer.sendto(header + data, self._client)
