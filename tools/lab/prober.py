"""Echo requests each millisecond, in a process of its own: how long each answer took.

    python -m tools.lab.prober ADDRESS

Until its standard input ends. Then it answers with one line of JSON: for each request when it was
sent, by the monotonic clock, and how long the answer took, both in seconds; null where none came in
two seconds. It runs before ordinary programs where it may, so that it measures the tunnel and not
itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

from tools.lab.handshake import checksum
from tools.lab.namespaces import Namespace
from tools.lab.programs import REPOSITORY

INTERVAL = 0.001
PATIENCE = 2.0
_ECHO, _ECHO_REPLY = 8, 0


class Probes:
    """What a prober found: (sent, took) of each request."""

    def __init__(self) -> None:
        self.all: list[tuple[float, float | None]] = []

    def worst(self, since: float, until: float) -> float:
        """The longest that an answer to a request of this time took; infinite if one was lost."""
        return max(self.times(since, until), default=0.0)

    def lost(self, since: float, until: float) -> int:
        return sum(taken == float("inf") for taken in self.times(since, until))

    def times(self, since: float, until: float) -> list[float]:
        return [
            float("inf") if taken is None else taken
            for sent, taken in self.all
            if since <= sent < until
        ]


@contextlib.contextmanager
def probing(namespace: Namespace, address: str) -> Iterator[Probes]:
    """Goes on while inside; has the answers afterwards."""
    process = namespace.popen(
        [sys.executable, "-m", "tools.lab.prober", address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    found = Probes()
    try:
        assert process.stdout.readline() == "probing\n"
        yield found
        process.stdin.close()
        found.all = [(sent, taken) for sent, taken in json.loads(process.stdout.readline())]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def main() -> None:
    address = sys.argv[1]
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    probe = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    probe.setblocking(False)
    sent: list[float] = []
    took: dict[int, float] = {}
    ended: float | None = None
    print("probing", flush=True)
    began = time.monotonic()
    while ended is None or (len(took) < len(sent) and time.monotonic() < ended + PATIENCE):
        now = time.monotonic()
        due = began + len(sent) * INTERVAL
        if ended is None and now >= due:
            sent.append(time.monotonic())
            with contextlib.suppress(OSError):
                probe.sendto(_request(len(sent) - 1), (address, 0))
            continue
        wait = max(due - now, 0) if ended is None else PATIENCE
        watched = [probe] if ended is not None else [probe, sys.stdin]
        ready = select.select(watched, [], [], wait)[0]
        if probe in ready:
            _take(probe, sent, took)
        if sys.stdin in ready:
            ended = time.monotonic()
    print(json.dumps([(at, took.get(number)) for number, at in enumerate(sent)]), flush=True)


def _request(number: int) -> bytes:
    message = struct.pack(">BBHHHI", _ECHO, 0, 0, os.getpid() & 0xFFFF, 0, number)
    return message[:2] + struct.pack(">H", checksum(message)) + message[4:]


def _take(probe: socket.socket, sent: list[float], took: dict[int, float]) -> None:
    with contextlib.suppress(OSError):
        while True:
            packet = probe.recv(256)[20:]
            if len(packet) != 12 or packet[0] != _ECHO_REPLY:
                continue
            _, _, _, identifier, _, number = struct.unpack(">BBHHHI", packet)
            if identifier == os.getpid() & 0xFFFF and number < len(sent) and number not in took:
                took[number] = time.monotonic() - sent[number]


if __name__ == "__main__":
    main()
