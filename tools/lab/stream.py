"""A stream that goes on while the test does something to the tunnel: numbered datagrams, one way,
by a thread. Every one that arrives is checked: its content, that it comes once, who sent it.

A change may cost datagrams. The test asks how soon one arrives that was sent after the change.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from types import TracebackType

from tools.lab.namespaces import Namespace
from tools.lab.traffic import SOL_UDP, UDP_SEGMENT, family_of, payload
from tools.lab.waiting import wait_until

# A train of these each millisecond is about 100 Mbit/s: a load, with a core left for the rest.
TRAIN = 10
SIZE = 1200
PAUSE_SECONDS = 0.001
# A round trip and a busy machine; less than the five seconds until a handshake is tried again.
SOON = 3.0
# Of two initiations within 20 ms the second is refused, as replayed or as a flood, and the next
# comes five seconds later. The kernel does the same.
RUSHED = 0.05
AFTER_A_RUSH = 8.0
_CONTENT = payload(1 << 16, 7)
_HEAD = struct.Struct(">Q")


def _datagram(number: int, size: int) -> bytes:
    start = number * 7919 % (len(_CONTENT) - size)
    return _HEAD.pack(number) + _CONTENT[start : start + size - _HEAD.size]


class Stream:
    """From `sender` to `address`, until the block ends; then says whether anything was wrong."""

    def __init__(
        self,
        sender: Namespace,
        receiver: Namespace,
        address: str,
        *,
        source: str | None = None,
        bind: str | None = None,
        size: int = SIZE,
    ) -> None:
        """`source`: the address to send from, and from which all of it must come. `bind`: where to
        listen, if not at `address`."""
        family = family_of(address)
        self.source = source
        self.size = size
        self.sent = 0
        self.arrived = 0
        self.newest = -1
        self.faults: list[str] = []
        self._seen = bytearray()
        self.receiver = receiver.socket(family)
        self.receiver.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        self.receiver.bind((bind or address, 0))
        self.receiver.setblocking(False)
        self.sender = sender.socket(family)
        self.sender.setblocking(False)
        if source:
            self.sender.bind((source, 0))
        self.target = (address, self.receiver.getsockname()[1])
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)

    def __repr__(self) -> str:
        return f"stream to {self.target[0]}: {self.sent} sent, {self.arrived} arrived"

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join(5)
        self.sender.close()
        self.receiver.close()
        if error is None:
            assert not self.faults, f"{self}: {self.faults[:5]}"

    def flows(self, seconds: float = 5) -> float:
        """Waits for a datagram sent from now on to arrive; how many seconds that took."""
        started, first = time.monotonic(), self.sent
        wait_until(lambda: self.newest >= first, f"{self} goes on", seconds, every=0.001)
        return time.monotonic() - started

    def is_silent(self, seconds: float) -> bool:
        """Whether nothing arrives for so long that is sent from now on."""
        first = self.sent
        time.sleep(seconds)
        return self.newest < first

    # The thread.

    def _run(self) -> None:
        while not self._over.is_set():
            self._send_train()
            until = time.monotonic() + PAUSE_SECONDS
            while (left := until - time.monotonic()) > 0:
                if select.select([self.receiver], [], [], left)[0]:
                    self._receive()

    def _send_train(self) -> None:
        train = b"".join(_datagram(self.sent + i, self.size) for i in range(TRAIN))
        self.sent += TRAIN
        control = [(SOL_UDP, UDP_SEGMENT, struct.pack("H", self.size))]
        # No route, no interface, a full queue: that is what the test is about.
        with contextlib.suppress(OSError):
            self.sender.sendmsg([train], control, 0, self.target)

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, source = self.receiver.recvfrom(65536)
                self._check(data, source[0])

    def _check(self, data: bytes, source: str) -> None:
        if len(data) != self.size:
            self.faults.append(f"{len(data)} bytes arrived, not {self.size}")
            return
        (number,) = _HEAD.unpack_from(data)
        if number >= self.sent or data != _datagram(number, self.size):
            self.faults.append(f"datagram {number} changed on its way")
            return
        if self.source is not None and source != self.source:
            self.faults.append(f"datagram {number} came from {source}")
        if number >= len(self._seen):
            self._seen.extend(bytes(number + 1024 - len(self._seen)))
        if self._seen[number]:
            self.faults.append(f"datagram {number} came twice")
        self._seen[number] = 1
        self.arrived += 1
        self.newest = max(self.newest, number)
