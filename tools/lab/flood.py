"""A flood of handshake initiations from many addresses, in a process of its own.

    python -m tools.lab.flood ADDRESS PORT PUBLIC_KEY KIND PER_SECOND SECONDS

KIND: `valid` has a right MAC1, as anybody can make who knows the public key; `junk` has none. They
come from 16 384 addresses, all local to the namespace it runs in, unless KIND ends in `-one`. With
`-trains` they come from one address in trains (UDP_SEGMENT), which costs the sender nearly nothing.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import random
import socket
import subprocess
import sys
import time
from typing import Any

from tools.lab.burst import Burst
from tools.lab.namespaces import Namespace, cable
from tools.lab.programs import REPOSITORY
from tools.lab.traffic import SOL_UDP, UDP_SEGMENT

SOURCES = "198.18.128.0/18"
_FIRST_SOURCE = int.from_bytes(socket.inet_aton("198.18.128.0"), "big")
_SOURCE_COUNT = 1 << 14
_POOL = 4096
_TRAIN = 64
TARGET = "198.18.0.1"


def connect(target: Namespace, flooder: Namespace) -> None:
    """The way from the flooder's addresses to TARGET and back."""
    cable((target, "flood", [f"{TARGET}/30"]), (flooder, "flood", ["198.18.0.2/30"]))
    flooder.ip("route", "add", "local", SOURCES, "dev", "lo")
    target.ip("route", "add", SOURCES, "via", "198.18.0.2")


@contextlib.contextmanager
def flooding(  # noqa: PLR0917
    flooder: Namespace, port: int, public_key: str, kind: str, per_second: int, seconds: float
) -> Any:
    """Goes on while inside, `seconds` at the most."""
    words = [TARGET, port, public_key, kind, per_second, seconds]
    process = flooder.popen(
        [sys.executable, "-m", "tools.lab.flood", *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "flooding\n"
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def messages(public_key: bytes, *, valid: bool) -> list[bytes]:
    """Initiations whose contents mean nothing."""
    label = hashlib.blake2s(b"mac1----" + public_key).digest()
    made = []
    for _ in range(_POOL):
        body = b"\1\0\0\0" + os.urandom(112)
        mac1 = hashlib.blake2s(body, digest_size=16, key=label).digest()
        made.append(body + (mac1 if valid else os.urandom(16)) + bytes(16))
    return made


def send_trains(
    target: tuple[str, int], pool: list[bytes], per_second: int, seconds: float
) -> None:
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.setsockopt(SOL_UDP, UDP_SEGMENT, len(pool[0]))
    trains = [b"".join(pool[first : first + _TRAIN]) for first in range(0, len(pool), _TRAIN)]
    print("flooding", flush=True)
    began, sent = time.monotonic(), 0
    while (now := time.monotonic() - began) < seconds:
        for _ in range(min((int(now * per_second) - sent) // _TRAIN, per_second // _TRAIN)):
            with contextlib.suppress(OSError):
                sender.sendto(trains[sent // _TRAIN % len(trains)], target)
            sent += _TRAIN
        time.sleep(0.0005)


def main() -> None:
    address, port, key, kind, per_second, seconds = sys.argv[1:]
    pool = messages(base64.b64decode(key), valid=kind.startswith("valid"))
    if kind.endswith("-trains"):
        send_trains((address, int(port)), pool, int(per_second), float(seconds))
        return
    sources = 1 if kind.endswith("-one") else _SOURCE_COUNT
    chance = random.Random(1)
    addresses = [_FIRST_SOURCE + chance.randrange(sources) for _ in range(_SOURCE_COUNT)]
    pool = [pool[number % _POOL] for number in range(_SOURCE_COUNT)]
    burst = Burst((address, int(port)), pool, addresses)
    print("flooding", flush=True)
    began, sent = time.monotonic(), 0
    while (now := time.monotonic() - began) < float(seconds):
        due = int(now * int(per_second)) - sent
        burst.send(min(due, int(per_second)))
        sent += due
        time.sleep(0.0005)


if __name__ == "__main__":
    main()
