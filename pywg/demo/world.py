"""The tiers with TUN: a world of three private network namespaces.

      node a                          world                         node b
      wg0  10.77.0.1/24                                             wg0  10.77.0.2/24
      veth 192.0.2.1/24  ---------- (makes the pair) -----------    veth 192.0.2.2/24

World, node a and node b are processes, each in a network namespace without a name. So no route or
interface of the host is touched, and all is gone when they end.
"""

from __future__ import annotations

import errno
import importlib
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from typing import Any

from pywg.config import AllowedIP, Config, Endpoint, InterfaceSection, PeerSection
from pywg.demo import traffic
from pywg.demo.process import (
    CLONE_NEWNET,
    Channel,
    Child,
    Refused,
    become_root_of_user_namespace,
    unshare,
)
from pywg.errors import NO_TUN, TUN_NOT_OURS, PywgError
from pywg.keys import PrivateKey
from pywg.native.device import Device
from pywg.native.options import LogLevel

Note = Callable[[str], None]

TUNNEL = "wg0"
MTU = 1420
PORT = 51820
PINGS = 5
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Node:
    """One end of the tunnel."""

    name: str
    veth: str
    outer: str
    inner: str
    private_key: PrivateKey

    def config(self, peer: Node) -> Config:
        return Config(
            InterfaceSection(private_key=self.private_key, listen_port=PORT),
            (
                PeerSection(
                    public_key=peer.private_key.public,
                    endpoint=Endpoint(peer.outer, PORT),
                    allowed_ips=(AllowedIP(ip_network(peer.inner)),),
                ),
            ),
        )


def run(seconds: float, note: Note, *, user_namespace: bool) -> dict[str, Any]:
    """Measures in a child process, whose namespaces end with it."""
    check_tun()
    with Child(lambda channel: _world(channel, seconds, user_namespace)) as world:
        while True:
            message = world.receive()
            if "note" in message:
                note(message["note"])
            else:
                result: dict[str, Any] = message["result"]
                return result


def check_tun() -> None:
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Refused(f"/dev/net/tun is not open to this user ({TUN_NOT_OURS})") from None
        raise Refused(f"there is no usable /dev/net/tun ({NO_TUN})") from None


def _world(channel: Channel, seconds: float, user_namespace: bool) -> None:
    def note(line: str) -> None:
        channel.send({"note": line})

    importlib.import_module("pyroute2")  # a third of a second, once instead of in each node
    if user_namespace:
        become_root_of_user_namespace()
    try:
        unshare(CLONE_NEWNET)
    except OSError as error:
        raise Refused(
            f"a network namespace needs CAP_SYS_ADMIN: {os.strerror(error.errno or 0)} "
            "(sudo pywg demo)"
        ) from None
    a = Node("a", "veth-a", "192.0.2.1", "10.77.0.1", PrivateKey.generate())
    b = Node("b", "veth-b", "192.0.2.2", "10.77.0.2", PrivateKey.generate())
    with ExitStack() as stack:
        began = time.monotonic()
        children = {
            "a": stack.enter_context(Child(lambda channel: _node(channel, a, b))),
            "b": stack.enter_context(Child(lambda channel: _node(channel, b, a))),
        }
        for child in children.values():
            child.receive()  # it is in its namespace
        _connect(a, children["a"].pid, b, children["b"].pid)
        for child in children.values():
            child.channel.send({"do": "open"})
        for child in children.values():
            child.receive()
        note(f"up: {a.inner} and {b.inner} in {1000 * (time.monotonic() - began):.0f} ms")
        result = {"mtu": MTU, **_measure(a, b, children, seconds, note)}
    channel.send({"result": result})


def _connect(a: Node, a_pid: int, b: Node, b_pid: int) -> None:
    """A veth pair with one end in each node."""
    from pyroute2 import IPRoute, NetlinkError

    try:
        with IPRoute() as ip:
            peer = {"ifname": b.veth, "net_ns_pid": b_pid}
            ip.link("add", ifname=a.veth, kind="veth", net_ns_pid=a_pid, peer=peer)
    except NetlinkError as error:
        reason = os.strerror(error.code)
        raise Refused(
            f"no veth pair: {reason} (it needs CAP_NET_ADMIN and the veth driver)"
        ) from None


def _node(channel: Channel, own: Node, peer: Node) -> None:
    """Hosts one device and answers questions about it. Its CPU time is the daemon's."""
    unshare(CLONE_NEWNET)
    channel.send({"ready": own.name})
    if channel.receive() is None:
        return
    try:
        device = Device(TUNNEL, own.config(peer), uapi_socket=False, log_level=LogLevel.SILENT)
    except PywgError as error:
        raise Refused(str(error)) from None
    with device:
        _addresses(own)
        channel.send({"up": own.name})
        while (question := channel.receive()) is not None:
            channel.send(_answer(device, question["ask"]))


def _addresses(own: Node) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        for name, address in (("lo", ""), (own.veth, own.outer), (TUNNEL, own.inner)):
            index = ip.link_lookup(ifname=name)[0]
            if address:
                interface = ip_interface(f"{address}/24")
                ip.addr("add", index=index, address=str(interface.ip), prefixlen=24)
            if name == TUNNEL:
                ip.link("set", index=index, mtu=MTU)
            ip.link("set", index=index, state="up")


def _answer(device: Device, question: str) -> dict[str, Any]:
    match question:
        case "cpu":
            return {"seconds": time.process_time()}
        case "handshake":
            return {"unix_ns": device.get().peers[0].last_handshake_ns}
        case _:
            report = device.report()
            dropped = {reason: count for reason, count in report.dropped.items() if count}
            return {"offloads": report.offloads, "dropped": dropped}


def _measure(
    a: Node, b: Node, children: dict[str, Child], seconds: float, note: Note
) -> dict[str, Any]:
    sent_unix_ns, times_ms = traffic.ping(children["a"].pid, b.inner, PINGS)
    shaken_unix_ns = children["a"].ask({"ask": "handshake"})["unix_ns"]
    handshake_ms = (shaken_unix_ns - sent_unix_ns) / 1e6
    note(f"handshake: {handshake_ms:.2f} ms after the first packet")
    note("ping: " + ", ".join(f"{value:.2f}" for value in times_ms) + " ms")
    transfers = []
    for source, sink in ((a, b), (b, a)):
        before = _cpu(children)
        measured = traffic.transfer(
            children[source.name].pid, children[sink.name].pid, sink.inner, seconds
        )
        cpu_seconds = _cpu(children) - before
        measured = {
            "direction": f"{source.name} to {sink.name}",
            **measured,
            "cpu_seconds": cpu_seconds,
            "cpu_seconds_per_gib": cpu_seconds * GIB / max(measured["bytes"], 1),
        }
        transfers.append(measured)
        note(
            f"{measured['direction']}: {measured['mbit_per_s']:.0f} Mbit/s "
            f"({measured['tool']}, {measured['seconds']:.1f} s)"
        )
    reports = {name: child.ask({"ask": "report"}) for name, child in children.items()}
    return {
        "handshake_ms": handshake_ms,
        "ping_ms": times_ms,
        "transfers": transfers,
        "offloads": {name: report["offloads"] for name, report in reports.items()},
        "dropped": {name: report["dropped"] for name, report in reports.items()},
    }


def _cpu(children: dict[str, Child]) -> float:
    return sum(float(child.ask({"ask": "cpu"})["seconds"]) for child in children.values())
