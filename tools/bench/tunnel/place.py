"""Two namespaces, a veth pair, a contestant at each end; and what can be read of them while they
run."""

from __future__ import annotations

import base64
import ipaddress
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.bench.tunnel.contestants import Contestant, relabel
from tools.bench.tunnel.underlays import Underlay
from tools.lab.daemon import Daemon
from tools.lab.lab import PORT, Lab, Side
from tools.lab.namespaces import Namespace, add_address, run
from tools.lab.traffic import ping_attempt
from tools.lab.waiting import wait_until

TICKS = os.sysconf("SC_CLK_TCK")
MTU = 1420
IDLE_NETWORK = ipaddress.ip_address("10.128.0.0")
SETCONF_SECONDS = 90
INTERFACE_SECONDS = 10


class KernelEnd:
    """The kernel's own WireGuard where a daemon would be; the parts of Daemon that are used."""

    pid = None

    def __init__(self, namespace: Namespace, name: str) -> None:
        self.namespace, self.name = namespace, name
        namespace.ip("link", "add", name, "type", "wireguard")

    def setconf(self, text: str) -> None:
        self.namespace.run("wg", "setconf", self.name, "/dev/stdin", text=text)

    def set(self, *argv: str) -> None:
        self.namespace.run("wg", "set", self.name, *argv)

    def up(self, *addresses: str, mtu: int) -> None:
        for address in addresses:
            add_address(self.namespace, self.name, address)
        self.namespace.ip("link", "set", self.name, "mtu", str(mtu), "up")


@dataclass
class Pair:
    """Both ends, set up; `address` is where b is reached from a."""

    lab: Lab
    a: Namespace
    b: Namespace
    address: str
    ends: tuple[Side, Side] | None = None  # None: no tunnel between them
    setconf_seconds: float = 0.0

    def both(self) -> list[tuple[Side, Side]]:
        """Each end with the other."""
        if self.ends is None:
            return []
        return [self.ends, (self.ends[1], self.ends[0])]

    def daemons(self) -> list[Daemon]:
        """Those that are processes."""
        return [end.daemon for end in self.ends or () if end.daemon.pid]

    def cpu_seconds(self) -> float | None:
        """User and system time of both daemons, all threads."""
        ends = self.daemons()
        return sum(map(cpu_seconds, ends)) if ends else None

    def peak_rss_mib(self) -> float | None:
        return max(map(peak_rss_mib, self.daemons()), default=None)

    def received_messages(self) -> tuple[int, int] | None:
        """Bytes that came over the veth of b, and UDP messages read in b."""
        ends = self.daemons()
        return veth_and_udp(ends[1].pid) if ends else None


def open_pair(
    lab: Lab, contestant: Contestant, underlay: Underlay, no_offload: str = "", peers: int = 1
) -> Pair:
    spaces = lab.cabled()
    underlay.apply(spaces)
    if not contestant.has_tunnel:
        return Pair(lab, *spaces, "192.0.2.2")
    ends = tuple(
        side(lab, contestant, number, space, no_offload) for number, space in enumerate(spaces, 1)
    )
    pair = Pair(lab, *spaces, ends[1].inner4, (ends[0], ends[1]))
    for here, there in pair.both():
        started = time.monotonic()
        setconf(here, here.interface_section() + there.peer_section(outer=4) + idle_peers(peers))
        pair.setconf_seconds = max(pair.setconf_seconds, time.monotonic() - started)
        here.daemon.up(f"{here.inner4}/24", mtu=MTU)
    wait_until(lambda: reaches(pair), f"{contestant.label} carries a ping", INTERFACE_SECONDS)
    return pair


def side(lab: Lab, contestant: Contestant, number: int, space: Namespace, no_offload: str) -> Side:
    if contestant.program is not None:
        options: dict[str, Any] = {"no_offload": no_offload, "log_level": "silent"}
        made = lab.side(relabel(contestant), number, space, **options)
        wait_until(lambda: made.namespace.link(made.daemon.name), f"{made.daemon} has a TUN")
        return made
    end: Any = KernelEnd(space, lab.name("w"))
    outer, inner = f"192.0.2.{number}", f"10.99.0.{number}"
    return Side(space, end, lab.key(), outer, f"2001:db8::{number}", inner, f"fd99::{number}")


def reaches(pair: Pair) -> bool:
    return ping_attempt(pair.a, pair.address, 1, seconds=1).returncode == 0


def setconf(end: Side, text: str) -> None:
    """As Daemon.setconf, with patience for 10 000 peers."""
    if isinstance(end.daemon, Daemon):
        run("wg", "setconf", end.daemon.name, "/dev/stdin", text=text, timeout=SETCONF_SECONDS)
    else:
        end.daemon.setconf(text)


def idle_peers(total: int) -> str:
    """Configuration of all peers but the one that is spoken to."""
    return "".join(
        "[Peer]\n"
        f"PublicKey = {base64.b64encode(os.urandom(32)).decode()}\n"
        f"AllowedIPs = {IDLE_NETWORK + number}/32\n"
        for number in range(1, total)
    )


def forget(pair: Pair) -> None:
    """Both ends lose their sessions: each removes the other and is told of it anew."""
    both = pair.both()
    for here, there in both:
        here.daemon.set("peer", there.key.public, "remove")
    for here, there in both:
        here.daemon.set(
            *("peer", there.key.public, "allowed-ips", f"{there.inner4}/32"),
            *("endpoint", f"{there.outer4}:{PORT}"),
        )


def cpu_seconds(daemon: Daemon) -> float:
    """User and system time of all threads, living and ended."""
    fields = Path(f"/proc/{daemon.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_rss_mib(daemon: Daemon) -> float:
    for line in Path(f"/proc/{daemon.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def veth_and_udp(pid: int) -> tuple[int, int]:
    """Bytes the veth received and UDP messages programs read, in the namespace of the process. A
    train read at once counts as one message."""
    for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "veth":
            received = int(counters.split()[0])
    names, values = (
        line.split()
        for line in Path(f"/proc/{pid}/net/snmp").read_text().splitlines()
        if line.startswith("Udp:")
    )
    return received, int(values[names.index("InDatagrams")])
