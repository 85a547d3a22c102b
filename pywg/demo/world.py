"""The tiers with TUN: a world of three private network namespaces.

      node a                          world                         node b
      wg0  10.77.0.1/24                                             wg0  10.77.0.2/24
      wg1  10.78.0.1/24           (wireguard-go, if any)            wg1  10.78.0.2/24
      veth 192.0.2.1/24  ---------- (makes the pair) -----------    veth 192.0.2.2/24

World, node a and node b are processes, each in a network namespace without a name. So no route or
interface of the host is touched, and all is gone when they end.
"""

from __future__ import annotations

import errno
import importlib
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_interface, ip_network
from typing import Any

from pywg.config import AllowedIP, Config, Endpoint, InterfaceSection, PeerSection
from pywg.demo import beside, traffic
from pywg.demo.process import (
    CLONE_NEWNET,
    Channel,
    Child,
    Refused,
    become_root_of_user_namespace,
    unshare,
)
from pywg.demo.reporter import Reporter, Sender
from pywg.errors import NO_TUN, PywgError
from pywg.keys import PrivateKey
from pywg.native.device import Device
from pywg.native.options import LogLevel

TUNNEL = "wg0"
MTU = 1420
PORT = 51820
OTHER_PORT = 51821
PINGS = 5
BESIDE_SECONDS_MAX = 2.0
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Node:
    """One end of the tunnel."""

    name: str
    veth: str
    outer: str
    inner: str
    other_inner: str
    private_key: PrivateKey

    def config(self, peer: Node) -> Config:
        return self._config(peer, peer.inner, PORT)

    def other_config(self, peer: Node) -> Config:
        """Of the implementation that it is measured beside."""
        return self._config(peer, peer.other_inner, OTHER_PORT)

    def _config(self, peer: Node, inner: str, port: int) -> Config:
        return Config(
            InterfaceSection(private_key=self.private_key, listen_port=port),
            (
                PeerSection(
                    public_key=peer.private_key.public,
                    endpoint=Endpoint(peer.outer, port),
                    allowed_ips=(AllowedIP(ip_network(inner)),),
                ),
            ),
        )


def run(seconds: float, reporter: Reporter, *, user_namespace: bool) -> dict[str, Any]:
    """Measures in a child process, whose namespaces end with it."""
    check_tun()
    with Child(lambda channel: _world(channel, seconds, user_namespace)) as world:
        while True:
            message = world.receive(reporter.wait)
            if "note" in message:
                reporter.note(message["note"])
            elif "begin" in message:
                reporter.begin(message["begin"], message["seconds"])
            else:
                result: dict[str, Any] = message["result"]
                return result


def check_tun() -> None:
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Refused("/dev/net/tun is not open to this user") from None
        raise Refused(f"there is no usable /dev/net/tun ({NO_TUN})") from None


def _world(channel: Channel, seconds: float, user_namespace: bool) -> None:
    reporter = Sender(channel)
    reporter.begin("namespaces and a tunnel", 0)
    importlib.import_module("pyroute2")  # a third of a second, once instead of in each node
    if user_namespace:
        become_root_of_user_namespace()
    try:
        unshare(CLONE_NEWNET)
    except OSError as error:
        raise Refused(
            f"a network namespace needs CAP_SYS_ADMIN: {os.strerror(error.errno or 0)}"
        ) from None
    a = Node("a", "veth-a", "192.0.2.1", "10.77.0.1", "10.78.0.1", PrivateKey.generate())
    b = Node("b", "veth-b", "192.0.2.2", "10.77.0.2", "10.78.0.2", PrivateKey.generate())
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
        took_ms = 1000 * (time.monotonic() - began)
        reporter.note(f"up: {a.inner} and {b.inner} in {took_ms:.0f} ms")
        result = {"mtu": MTU, **_measure(a, b, children, seconds, reporter)}
        compared = _beside(a, b, children, min(seconds, BESIDE_SECONDS_MAX), reporter)
        result |= {"beside": compared, "beside_notes": beside.notes(compared)}
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
        ip.link("set", index=ip.link_lookup(ifname="lo")[0], state="up")
    _address(own.veth, own.outer)
    _address(TUNNEL, own.inner, MTU)


def _address(name: str, address: str, mtu: int | None = None) -> None:
    """Gives a link its address, and brings it up."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        index = ip.link_lookup(ifname=name)[0]
        interface = ip_interface(f"{address}/24")
        ip.addr("add", index=index, address=str(interface.ip), prefixlen=24)
        if mtu is not None:
            ip.link("set", index=index, mtu=mtu)
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
            threads = int(report.other.get("threads", 1))
            return {"offloads": report.offloads, "dropped": dropped, "threads": threads}


def _measure(
    a: Node, b: Node, children: dict[str, Child], seconds: float, reporter: Reporter
) -> dict[str, Any]:
    reporter.begin("handshake and pings", 0)
    sent_unix_ns, times_ms = traffic.ping(children["a"].pid, b.inner, PINGS)
    shaken_unix_ns = children["a"].ask({"ask": "handshake"})["unix_ns"]
    handshake_ms = (shaken_unix_ns - sent_unix_ns) / 1e6
    reporter.note(f"handshake: {handshake_ms:.2f} ms after the first packet")
    reporter.note("ping: " + ", ".join(f"{value:.2f}" for value in times_ms) + " ms")
    transfers = []
    for source, sink in ((a, b), (b, a)):
        before = _cpu(children)
        reporter.begin(f"TCP through pywg, {source.name} to {sink.name}", seconds)
        measured = _transfer(children, source, sink, sink.inner, seconds)
        measured |= _cost(_cpu(children) - before, measured)
        transfers.append(measured)
        reporter.note(
            f"{measured['direction']}: {measured['mbit_per_s']:.0f} Mbit/s "
            f"({measured['tool']}, {measured['seconds']:.1f} s)"
        )
    reports = {name: child.ask({"ask": "report"}) for name, child in children.items()}
    return {
        "handshake_ms": handshake_ms,
        "ping_ms": times_ms,
        "transfers": transfers,
        "threads": reports["a"]["threads"],
        "offloads": {name: report["offloads"] for name, report in reports.items()},
        "dropped": {name: report["dropped"] for name, report in reports.items()},
    }


def _transfer(
    children: dict[str, Child], source: Node, sink: Node, address: str, seconds: float
) -> dict[str, Any]:
    source_pid, sink_pid = (children[node.name].pid for node in (source, sink))
    return {
        "direction": f"{source.name} to {sink.name}",
        **traffic.transfer(source_pid, sink_pid, address, seconds),
    }


def _cost(cpu_seconds: float, measured: dict[str, Any]) -> dict[str, float]:
    each_gib = cpu_seconds * GIB / max(measured["bytes"], 1)
    return {"cpu_seconds": cpu_seconds, "cpu_seconds_per_gib": each_gib}


def _cpu(children: dict[str, Child]) -> float:
    return sum(float(child.ask({"ask": "cpu"})["seconds"]) for child in children.values())


# ---- beside others


def _beside(
    a: Node, b: Node, children: dict[str, Child], seconds: float, reporter: Reporter
) -> dict[str, Any]:
    """Transfers by name; a comparison that fails is told, and spoils nothing."""
    found: dict[str, Any] = {}
    for name, measure in ((beside.BARE, _bare), (beside.OTHER, _other)):
        try:
            transfers = measure(a, b, children, seconds, reporter)
        except PywgError as reason:
            reporter.note(f"{name}: not measured: {reason}")
            continue
        if transfers:
            found[name] = transfers
            reporter.note(f"{name}: {beside.speed(transfers):.0f} Mbit/s")
    return found


def _bare(
    a: Node, b: Node, children: dict[str, Child], seconds: float, reporter: Reporter
) -> list[dict[str, Any]]:
    """The cable itself: no tunnel, no cipher."""
    transfers = []
    for source, sink in ((a, b), (b, a)):
        reporter.begin(f"TCP over the bare cable, {source.name} to {sink.name}", seconds)
        transfers.append(_transfer(children, source, sink, sink.outer, seconds))
    return transfers


def _other(
    a: Node, b: Node, children: dict[str, Child], seconds: float, reporter: Reporter
) -> list[dict[str, Any]]:
    command = beside.program()
    if command is None:
        return []
    reporter.begin(f"a tunnel of {beside.OTHER}", 0)
    with ExitStack() as stack:
        hosts = {}
        for own, peer in ((a, b), (b, a)):
            host = beside.host(
                command,
                children[own.name].pid,
                own.other_config(peer),
                partial(_address, beside.INTERFACE, own.other_inner, MTU),
            )
            hosts[own.name] = stack.enter_context(host)
        for host in hosts.values():
            host.receive()
        transfers = []
        for source, sink in ((a, b), (b, a)):
            before = _cpu(hosts)
            reporter.begin(f"TCP through {beside.OTHER}, {source.name} to {sink.name}", seconds)
            measured = _transfer(children, source, sink, sink.other_inner, seconds)
            transfers.append(measured | _cost(_cpu(hosts) - before, measured))
        return transfers
