"""An Interface on UDP sockets of the caller's, with its timers: what moves datagrams between them.

``Driver`` has no loop: it says what to wait for, and is told what happened. ``Loop`` is that of a
thread; ``pywg.drive.aio`` is for asyncio's. Knows sockets, not what packets hold.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from time import CLOCK_BOOTTIME, clock_gettime_ns

from pywg.native.batch import Batch
from pywg.native.interface import Interface
from pywg.native.packets import OVERHEAD, Buffer

BATCH = 64
SLOT_MIN = 2048
# Batches that one look at a socket receives at most, so that timers and other sockets have a turn.
BATCHES_A_TURN = 8
# While a machine sleeps, deadlines come nearer and the clocks of loops stand still.
TIMEOUT_MAX_S = 15.0
_NS = 1_000_000_000


class Driver:
    """Moves datagrams between an ``Interface`` and UDP sockets, one for each address family.

    ``deliver(packet)`` is called with each inner packet that comes in: a view that is good until it
    returns. It may call ``send``. Any thread may call the methods. The sockets and the interface
    stay the caller's; the sockets become non-blocking. A datagram that a socket does not take is
    lost, as on any network, and counted in ``unsent``.
    """

    def __init__(
        self,
        interface: Interface,
        sockets: Sequence[socket.socket],
        deliver: Callable[[memoryview], object],
    ) -> None:
        """ValueError: a socket is no UDP socket, or two are of one family."""
        self.interface = interface
        self.sockets = tuple(sockets)
        self.unsent = 0
        self._by_family: dict[bool, socket.socket] = {}
        for one in self.sockets:
            if one.type != socket.SOCK_DGRAM or one.family not in (socket.AF_INET, socket.AF_INET6):
                raise ValueError(f"{one} is no UDP socket")
            if (is_ipv6 := one.family == socket.AF_INET6) in self._by_family:
                raise ValueError(
                    "of two sockets of one family it is not known which one to send by"
                )
            one.setblocking(False)
            self._by_family[is_ipv6] = one
        self._deliver = deliver
        # Callable from within deliver.
        self._lock = threading.RLock()
        size = max(interface.mtu + OVERHEAD, SLOT_MIN)
        self._out, self._in = Batch(BATCH, size), Batch(BATCH, size)
        self._wake: Callable[[], None] = lambda: None

    def send(self, *packets: Buffer) -> None:
        """Seals inner packets and sends them; those whose peer has no session yet wait for it.

        What the interface drops is counted there: ``Interface.dropped``. ValueError: a packet is
        longer than the MTU. DeviceError: the interface was closed.
        """
        with self._lock:
            for first in range(0, len(packets), BATCH):
                some = packets[first : first + BATCH]
                lengths = [len(packet) for packet in some]
                if max(lengths) > self.interface.mtu:
                    raise ValueError(f"a packet is longer than the MTU, {self.interface.mtu}")
                for view, packet, length in zip(self._out.packets, some, lengths, strict=False):
                    view[:length] = packet
                self.interface.seal_into(self._out, lengths)
                self._send_sealed()
            self._send_what_is_due()
        self._wake()

    def readable(self, one: socket.socket) -> None:
        """Receives what has arrived at a socket, and delivers what comes out of it.

        DeviceError: the interface was closed. What ``deliver`` raises.
        """
        with self._lock:
            for _ in range(BATCHES_A_TURN):
                lengths, sources = [], []
                for view in self._in.datagrams:
                    try:
                        length, source = one.recvfrom_into(view)
                    except OSError:  # no more; or what ICMP said of a datagram that was sent
                        break
                    lengths.append(length)
                    sources.append(source)
                if not lengths:
                    break
                self.interface.open_into(self._in, lengths, sources)
                for packet in self._in.opened():
                    self._deliver(packet)
                self._send_what_is_due()
                if len(lengths) < BATCH:
                    break

    def timeout(self) -> float | None:
        """Seconds until ``expire`` is to be called, None for never. It changes with every other
        call."""
        deadline = self.interface.deadline()
        if deadline is None:
            return None
        left = deadline - clock_gettime_ns(CLOCK_BOOTTIME)
        return min(max(left / _NS, 0.0), TIMEOUT_MAX_S)

    def expire(self) -> None:
        """Lets due timers fire, and sends what they want sent. Too early is harmless."""
        with self._lock:
            self.interface.expire()
            self._send_what_is_due()

    def _send_what_is_due(self) -> None:
        while True:
            written = self.interface.poll_into(self._out)
            self._send_sealed()
            if written < BATCH:
                return

    def _send_sealed(self) -> None:
        for datagram, address in self._out.sealed():
            by = self._by_family.get(":" in address[0])
            try:
                if by is None:
                    raise OSError("no socket of this family")
                by.sendto(datagram, address)
            except OSError:
                self.unsent += 1


class Loop:
    """Runs a ``Driver`` in a thread: in the caller's by ``run``, until any thread calls ``stop``.

    Also a context manager: ``with Loop(driver):`` runs it in a thread of its own for the length of
    the block.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self._is_over = False
        self._thread: threading.Thread | None = None
        self._running: int | None = None
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        driver._wake = self._wake_from_elsewhere

    def run(self) -> None:
        """Moves datagrams until ``stop``, or until the interface is closed.

        What ``deliver`` raises ends it and is raised.
        """
        driver = self.driver
        self._running = threading.get_ident()
        with selectors.DefaultSelector() as selector:
            for one in driver.sockets:
                selector.register(one, selectors.EVENT_READ, one)
            selector.register(self._bell, selectors.EVENT_READ, None)
            while not self._is_over:
                for key, _ in selector.select(driver.timeout()):
                    if key.data is None:
                        os.eventfd_read(self._bell)
                    else:
                        driver.readable(key.data)
                if driver.timeout() == 0.0:
                    driver.expire()

    def stop(self) -> None:
        """Makes ``run`` return soon, and every later one at once. For signal handlers too."""
        self._is_over = True
        os.eventfd_write(self._bell, 1)

    def close(self) -> None:
        """Stops, and waits for its own thread."""
        if self._bell < 0:
            return
        self.stop()
        if self._thread is not None:
            self._thread.join()
        self.driver._wake = lambda: None
        bell, self._bell = self._bell, -1
        os.close(bell)

    def __enter__(self) -> Loop:
        self._thread = threading.Thread(target=self.run, name="pywg drive", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wake_from_elsewhere(self) -> None:
        """A packet that was sent may have made a nearer deadline."""
        if threading.get_ident() != self._running and self._bell >= 0:
            os.eventfd_write(self._bell, 1)
