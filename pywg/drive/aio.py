"""A Driver in an asyncio loop: inner packets in and out, datagrams and timers by the loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

from pywg.drive import Driver
from pywg.native.interface import Interface
from pywg.native.packets import Buffer

WAITING_MAX = 1024


class AsyncDriver:
    """An ``Interface`` on UDP sockets, for coroutines of one loop.

    ``async with AsyncDriver(interface, [sock]) as tunnel:`` moves datagrams for the length of the
    block. The interface and the sockets stay the caller's. Inner packets that nobody fetches by
    ``receive`` are lost when ``waiting_max`` of them wait, and counted in ``lost``.
    """

    def __init__(
        self,
        interface: Interface,
        sockets: Sequence[socket.socket],
        *,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        """ValueError: a socket is no UDP socket, or two are of one family."""
        self.lost = 0
        self._driver = Driver(interface, sockets, self._keep)
        self._packets: asyncio.Queue[bytes] = asyncio.Queue(waiting_max)
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def send(self, *packets: Buffer) -> None:
        """Seals inner packets and sends them; those whose peer has no session yet wait for it.
        Never blocks.

        ValueError: a packet is longer than the MTU. DeviceError: the interface was closed.
        """
        self._driver.send(*packets)
        self._set_timer()

    async def receive(self) -> bytes:
        """The next inner packet that came in."""
        return await self._packets.get()

    async def __aenter__(self) -> AsyncDriver:
        self._loop = asyncio.get_running_loop()
        for one in self._driver.sockets:
            self._loop.add_reader(one, self._readable, one)
        self._expire()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._loop is None:
            return
        for one in self._driver.sockets:
            self._loop.remove_reader(one)
        if self._timer is not None:
            self._timer.cancel()
        self._loop = self._timer = None

    def _readable(self, one: socket.socket) -> None:
        self._driver.readable(one)
        self._set_timer()

    def _expire(self) -> None:
        self._driver.expire()
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        left = self._driver.timeout()
        if left is not None and self._loop is not None:
            self._timer = self._loop.call_later(left, self._expire)

    def _keep(self, packet: memoryview) -> None:
        try:
            self._packets.put_nowait(packet.tobytes())
        except asyncio.QueueFull:
            self.lost += 1
