"""One hub with 100 peers that all receive: small mixed flows, which no superpacket describes.

      namespace a                             namespace b
    +------------------------+    veth     +-------------------------------+
    |  sender -> TUN -> hub ===================> pywgd 1 -> 10.98.0.1      |
    |         (contestant)   |             |     pywgd 2 -> 10.98.0.2  ... |
    +------------------------+             +-------------------------------+

The far ends are pywgd for every contestant; what is compared is the hub, which only sends here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tools.bench.tunnel.contestants import BARE, Contestant, relabel
from tools.bench.tunnel.datagrams import trials
from tools.bench.tunnel.place import KernelEnd, cpu_seconds
from tools.bench.tunnel.udp_rate import Found, Trial
from tools.bench.tunnel.underlays import Underlay
from tools.lab.daemon import Daemon
from tools.lab.keys import Key
from tools.lab.lab import PORT, Lab
from tools.lab.namespaces import Namespace, add_address

PEERS = 100
SIZES = (64, 300, 1372)
ADDRESSES = [f"10.98.0.{number}" for number in range(1, PEERS + 1)]


def active_peers(
    lab: Lab,
    contestant: Contestant,
    client: Contestant,
    underlay: Underlay,
    *,
    search: Callable[[Callable[[float], Trial]], Found],
    seconds: float,
) -> dict[str, float]:
    """Packets a second without loss to all peers in turn; CPU of the hub for each."""
    if contestant.label == BARE:
        return {}
    spaces = lab.cabled()
    underlay.apply(spaces)
    hub = _hub(lab, contestant, spaces[0])
    key = lab.key()
    keys = [lab.key() for _ in ADDRESSES]
    for number, (address, own) in enumerate(zip(ADDRESSES, keys, strict=True), 1):
        end = lab.daemon(relabel(client), spaces[1], log_level="silent")
        _far_end(end, key, own, address=address, port=PORT + number)
    hub.setconf(_hub_configuration(key, keys))
    hub.up("10.98.200.1/16", mtu=1420)
    with _warm(spaces, ADDRESSES) as trial:
        costs: dict[Trial, float] = {}

        def run(rate: float) -> Trial:
            before = _cost(hub)
            done = trial(rate, seconds)
            costs[done] = _cost(hub) - before
            return done

        best = search(run).best
    if best is None:
        return {"active_100": 0.0}
    values = {"active_100": best.received_rate / 1e3}
    if isinstance(hub, Daemon) and best.sent:
        values["active_100_cpu"] = costs[best] / best.sent * 1e6
    return values


def _cost(hub: Daemon | KernelEnd) -> float:
    """CPU seconds so far; the kernel's are not seen."""
    return cpu_seconds(hub) if isinstance(hub, Daemon) else 0.0


def _hub(lab: Lab, contestant: Contestant, space: Namespace) -> Daemon | KernelEnd:
    program = relabel(contestant)
    if program is None:
        return KernelEnd(space, lab.name("h"))
    return lab.daemon(program, space, log_level="silent")


def _far_end(end: Daemon, hub: Key, own: Key, *, address: str, port: int) -> None:
    end.setconf(
        f"[Interface]\nPrivateKey = {own.private}\nListenPort = {port}\n"
        f"[Peer]\nPublicKey = {hub.public}\nAllowedIPs = 10.98.200.1/32\n"
    )
    add_address(end.namespace, end.name, f"{address}/32")
    end.namespace.ip("link", "set", end.name, "mtu", "1420", "up")


def _hub_configuration(key: Key, keys: list[Key]) -> str:
    sections = [f"[Interface]\nPrivateKey = {key.private}\nListenPort = {PORT}\n"]
    for number, (address, one) in enumerate(zip(ADDRESSES, keys, strict=True), 1):
        sections.append(
            f"[Peer]\nPublicKey = {one.public}\nAllowedIPs = {address}/32\n"
            f"Endpoint = 192.0.2.2:{PORT + number}\n"
        )
    return "".join(sections)


@contextmanager
def _warm(
    spaces: tuple[Namespace, Namespace], addresses: list[str]
) -> Iterator[Callable[[float, float], Trial]]:
    """Trials after every peer has a session; a daemon spaces out its handshakes under load."""
    with trials(*spaces, addresses, SIZES, "0.0.0.0") as trial:  # noqa: S104 - in a namespace
        for _ in range(10):
            if trial(400, 1.0).passes:
                break
        yield trial
