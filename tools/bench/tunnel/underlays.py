"""What the veth pair does with trains of datagrams, and proof of it.

A veth pair passes a train on whole, which no network card does: it flatters those who send trains.
So it is measured in three ways. What a receiver gets is not believed but counted: the probe sends
trains and looks at what arrives.

Linux 6.18 does not rebuild trains on a veth with `gro on` alone, even for a socket with UDP_GRO;
`rx-udp-gro-forwarding on` makes it do so, for every receiver. A receiver without UDP_GRO is given
single datagrams again by its socket.
"""

from __future__ import annotations

import socket
from collections import Counter
from dataclasses import dataclass

from tools.lab.namespaces import Namespace

SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
PROBE_PORT = 51999
PROBE_TRAINS, PROBE_SEGMENTS, PROBE_SIZE = 8, 40, 1452


@dataclass(frozen=True)
class Underlay:
    name: str
    title: str
    features: tuple[str, ...]  # of both ends, for ethtool -K

    def apply(self, spaces: tuple[Namespace, Namespace]) -> None:
        for space in spaces:
            if self.features:
                space.run("ethtool", "-K", "veth", *self.features)


UNDERLAYS = {
    underlay.name: underlay
    for underlay in (
        Underlay("trains", "whole trains (veth as it is)", ()),
        Underlay(
            "singles",
            "single datagrams (the sending kernel cuts trains, nobody rebuilds them)",
            ("tx-udp-segmentation", "off", "gso", "off", "gro", "off"),
        ),
        Underlay(
            "rebuilt",
            "rebuilt trains (cut by the sending kernel, rebuilt by GRO of the receiving one)",
            ("tx-udp-segmentation", "off", "gro", "on", "rx-udp-gro-forwarding", "on"),
        ),
    )
}


def probe(a: Namespace, b: Namespace, address: str) -> str:
    """What a socket with UDP_GRO gets of trains of equal datagrams."""
    sizes: Counter[int] = Counter()
    with a.socket() as sender, b.socket() as receiver:
        try:
            sender.setsockopt(SOL_UDP, UDP_SEGMENT, PROBE_SIZE)
            receiver.setsockopt(SOL_UDP, UDP_GRO, 1)
        except OSError:
            return "this kernel has no UDP_SEGMENT or no UDP_GRO"
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        receiver.bind((address, PROBE_PORT))
        receiver.settimeout(0.3)
        sender.connect((address, PROBE_PORT))
        for _ in range(PROBE_TRAINS):
            sender.send(bytes(PROBE_SIZE * PROBE_SEGMENTS))
            sizes += _arrived(receiver)
    return describe(sizes)


def _arrived(receiver: socket.socket) -> Counter[int]:
    """Datagrams in each message, until a train is complete."""
    found: Counter[int] = Counter()
    try:
        while sum(size * times for size, times in found.items()) < PROBE_SEGMENTS:
            found[len(receiver.recv(65536)) // PROBE_SIZE] += 1
    except TimeoutError:
        pass
    return found


def describe(sizes: Counter[int]) -> str:
    total = sum(size * times for size, times in sizes.items())
    arrived = ", ".join(f"{times} x {size}" for size, times in sorted(sizes.items()))
    lost = PROBE_TRAINS * PROBE_SEGMENTS - total
    return (
        f"{PROBE_TRAINS} trains of {PROBE_SEGMENTS} datagrams arrive as {arrived or 'nothing'}"
        + (f", {lost} lost" if lost else "")
    )


def offloads(space: Namespace) -> dict[str, str]:
    """The features of the veth that matter here."""
    wanted = {
        "tx-udp-segmentation",
        "generic-segmentation-offload",
        "generic-receive-offload",
        "rx-udp-gro-forwarding",
        "rx-gro-list",
        "tx-checksum-ip-generic",
        "rx-checksumming",
    }
    lines = (line.strip().split(":", 1) for line in space.run("ethtool", "-k", "veth").splitlines())
    return {line[0]: line[1].strip() for line in lines if line[0] in wanted}
