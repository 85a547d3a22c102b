"""The wheel of another machine, loaded there by its Python, against the library of this one.

A handshake and then pings through the tunnel, over UDP on the loopback of a namespace.
"""

from __future__ import annotations

import os
import random
import select
import socket
import struct
import subprocess
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

from pywg.drive import Driver
from pywg.keys import PrivateKey
from pywg.native.interface import Interface
from tools.lab.namespaces import Namespace
from tools.targets import machine

HERE, THERE = ("10.0.0.1", 51820), ("10.0.0.2", 51821)
PAYLOAD = 1200
# More than one batch.
PINGS = 300
PATIENCE_S = 60.0
ANSWER = Path(__file__).with_name("answer.py")


def load(wheel: Path, arch: str, namespace: Namespace, folder: Path) -> str:
    """Unpacks the wheel, and pings through a tunnel to it; what the other Python is.

    machine.Missing: there is no Python for it. AssertionError: what did not work.
    """
    python = machine.python(arch)
    site = folder / arch
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    ours, theirs = PrivateKey.generate(), PrivateKey.generate()
    text = folder / f"{arch}.uapi"
    text.write_text(_uapi(theirs, ours, HERE), encoding="ascii")
    text.chmod(0o600)
    far = namespace.popen(
        [*python.command, str(ANSWER), str(THERE[1]), str(text)],
        env={**os.environ, **python.environment, "PYTHONPATH": str(site)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert far.stdout is not None
    assert far.stderr is not None
    try:
        said: str = far.stdout.readline()
        if not said.startswith("ready"):
            raise AssertionError(f"the wheel for {arch}: {far.stderr.read()[-2000:]}")
        with namespace.socket() as udp, Interface(_uapi(ours, theirs, THERE)) as interface:
            udp.bind(("127.0.0.1", HERE[1]))
            _ping(udp, interface)
        return f"{said.split()[1]} endian, {said.split()[2]} bit"
    finally:
        far.kill()
        far.communicate()


def _uapi(own: PrivateKey, peer: PrivateKey, end: tuple[str, int]) -> str:
    return (
        f"private_key={bytes(own).hex()}\npublic_key={bytes(peer.public).hex()}\n"
        f"endpoint=127.0.0.1:{end[1]}\nallowed_ip={end[0]}/32\n"
    )


def _ping(udp: socket.socket, interface: Interface) -> None:
    """Every echo comes back, as it was."""
    random_bytes = random.Random(1).randbytes
    waiting = [_echo(number, random_bytes(PAYLOAD)) for number in range(PINGS)]
    missing = {packet[28:] for packet in waiting}
    driver = Driver(interface, [udp], lambda packet: missing.discard(bytes(packet[28:])))
    until = time.monotonic() + PATIENCE_S
    while missing:
        left = until - time.monotonic()
        assert left > 0, f"{len(missing)} of {PINGS} echoes did not come back"
        # A few at a time: a socket holds only so many.
        driver.send(*waiting[:16])
        del waiting[:16]
        before = len(missing)
        while len(missing) > max(before - 16, 0) and left > 0:
            select.select([udp], [], [], min(driver.timeout() or left, left))
            driver.readable(udp)
            driver.expire()
            left = until - time.monotonic()


def _echo(number: int, payload: bytes) -> bytes:
    icmp = struct.pack("!BBHHH", 8, 0, 0, 1, number) + payload
    icmp = icmp[:2] + _checksum(icmp) + icmp[4:]
    total = 20 + len(icmp)
    addresses = (socket.inet_aton(HERE[0]), socket.inet_aton(THERE[0]))
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, total, number, 0, 64, 1, 0, *addresses)
    return head[:10] + _checksum(head) + head[12:] + icmp


def _checksum(data: Sequence[int]) -> bytes:
    total = sum(high << 8 | low for high, low in zip(data[::2], data[1::2], strict=True))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (total ^ 0xFFFF).to_bytes(2, "big")
