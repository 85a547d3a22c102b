"""Echo requests each millisecond, in a process of its own: how long each answer took.

    python -m tools.lab.prober ADDRESS SECONDS

It answers with one line of JSON: for each request when it was sent, by the monotonic clock, and how
long the answer took, both in seconds; null where none came within two seconds. It runs before
ordinary programs where it may, so that it measures the tunnel and not itself.
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
_ECHO_REPLY = 0


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
def probing(namespace: Namespace, address: str, seconds: float) -> Iterator[Probes]:
    """Goes on while inside; waits for its end and then has the answers."""
    process = namespace.popen(
        [sys.executable, "-m", "tools.lab.prober", address, str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdout is not None
    found = Probes()
    try:
        assert process.stdout.readline() == "probing\n"
        yield found
        found.all = [(sent, taken) for sent, taken in json.loads(process.stdout.readline())]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def main() -> None:
    address, seconds = sys.argv[1], float(sys.argv[2])
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    probe = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    probe.setblocking(False)
    own = os.getpid() & 0xFFFF
    sent: list[float] = []
    took: dict[int, float] = {}
    print("probing", flush=True)
    began = time.monotonic()
    while (now := time.monotonic()) < began + seconds + PATIENCE:
        due = began + len(sent) * INTERVAL
        if now >= due and now < began + seconds:
            number = len(sent)
            message = struct.pack(">BBHHHI", 8, 0, 0, own, 0, number)
            message = message[:2] + struct.pack(">H", checksum(message)) + message[4:]
            sent.append(time.monotonic())
            with contextlib.suppress(OSError):
                probe.sendto(message, (address, 0))
            continue
        if now >= began + seconds and len(took) == len(sent):
            break
        wait = due - now if now < began + seconds else PATIENCE
        if not select.select([probe], [], [], max(wait, 0))[0]:
            continue
        with contextlib.suppress(OSError):
            while True:
                packet = probe.recv(256)[20:]
                if len(packet) == 12 and packet[0] == _ECHO_REPLY:
                    _, _, _, identifier, _, number = struct.unpack(">BBHHHI", packet)
                    if identifier == own and number < len(sent) and number not in took:
                        took[number] = time.monotonic() - sent[number]
    print(json.dumps([(at, took.get(number)) for number, at in enumerate(sent)]), flush=True)


if __name__ == "__main__":
    main()
