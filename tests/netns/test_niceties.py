"""What the kernel's WireGuard does for its users beyond the protocol, and other userspace ones do
not: unreachable messages for the local sender, ECN across the tunnel both ways, DSCP on
handshakes."""

from __future__ import annotations

import socket
import time

import pytest

from tools.lab.handshake import ipv4
from tools.lab.lab import Lab, Tunnel
from tools.lab.traffic import ping, ping_attempt
from tools.lab.wire import Wire

IP_RECVERR = 11

pytestmark = pytest.mark.pywgd_only


@pytest.mark.parametrize("address", ["10.99.0.200", "fd99::200"], ids=["v4", "v6"])
def test_a_destination_without_peer_is_unreachable_at_once(lab: Lab, address: str) -> None:
    tunnel = lab.tunnel()
    started = time.monotonic()
    answer = ping_attempt(tunnel.a.namespace, address, seconds=3)
    assert answer.returncode == 1
    assert "nreachable" in answer.stdout, answer.stdout
    assert time.monotonic() - started < 4
    assert tunnel.a.daemon.report()["dropped_no_peer"] != "0"


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_a_peer_without_endpoint_is_unreachable_at_once(lab: Lab, family: int) -> None:
    tunnel = lab.tunnel(knows="b")
    answer = ping_attempt(
        tunnel.a.namespace, tunnel.b.inner4 if family == 4 else tunnel.b.inner6, seconds=3
    )
    assert answer.returncode == 1
    assert "nreachable" in answer.stdout, answer.stdout
    assert tunnel.a.daemon.report()["dropped_no_endpoint"] != "0"


def test_a_sender_by_udp_learns_of_it(lab: Lab) -> None:
    tunnel = lab.tunnel()
    with tunnel.a.namespace.socket() as sender:
        sender.settimeout(2)
        # Without it the kernel keeps "host unreachable" from UDP, as something that may pass.
        sender.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        sender.connect(("10.99.0.200", 9))
        sender.send(b"to nobody")
        with pytest.raises(OSError) as refused:
            sender.recv(16)
        assert not isinstance(refused.value, TimeoutError)


def test_unreachable_messages_do_not_answer_each_other(lab: Lab) -> None:
    """An ICMP error that itself goes nowhere must not make another."""
    tunnel = lab.tunnel()
    wire = Wire(
        tunnel.a.namespace,
        errors=f'iifname "{tunnel.a.daemon.name}" icmp type destination-unreachable',
    )
    with tunnel.a.namespace.entered():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    error = b"\3\1\0\0" + bytes(4) + ipv4(bytes([10, 99, 0, 200]), bytes([10, 99, 0, 1]), bytes(8))
    with raw:
        raw.sendto(ipv4(bytes([10, 99, 0, 1]), bytes([10, 99, 0, 200]), error), ("10.99.0.200", 0))
    ping_attempt(tunnel.a.namespace, "10.99.0.200", seconds=1, once=True)
    assert wire["errors"] <= 1


@pytest.mark.parametrize("outer", [4, 6], ids=["over-v4", "over-v6"])
def test_handshakes_carry_dscp_0x88_and_data_does_not(lab: Lab, outer: int) -> None:
    field = "ip dscp" if outer == 4 else "ip6 dscp"
    tunnel = lab.tunnel(outer=outer)
    wires = [
        Wire(
            side.namespace,
            marked=f"meta l4proto udp @th,64,8 < 4 {field} 34",
            unmarked=f"meta l4proto udp @th,64,8 < 4 {field} != 34",
            data=f"meta l4proto udp @th,64,8 4 {field} != 0",
        )
        for side in (tunnel.a, tunnel.b)
    ]
    tunnel.ping()
    for wire in wires:
        counts = wire.counts()
        assert counts["marked"] >= 1 and counts["unmarked"] == 0 and counts["data"] == 0, counts


# The two bits of ECN: what is sent inside, and what may travel outside. For congestion already
# experienced inside, the kernel sends ECT(0) outside and RFC 6040 says CE; both keep the mark.
OUTWARD = {0: {0}, 1: {1}, 2: {2}, 3: {2, 3}}


@pytest.mark.parametrize("outer", [4, 6], ids=["over-v4", "over-v6"])
@pytest.mark.parametrize("inner", [4, 6], ids=["v4-inside", "v6-inside"])
@pytest.mark.parametrize("bits", OUTWARD, ids=["not-ECT", "ECT1", "ECT0", "CE"])
def test_ecn_inside_is_shown_outside_and_kept_inside(
    lab: Lab, bits: int, inner: int, outer: int
) -> None:
    tunnel = lab.tunnel(outer=outer)
    tunnel.session()
    outside = "ip ecn" if outer == 4 else "ip6 ecn"
    family = "ip" if inner == 4 else "ip6"
    wire = Wire(
        tunnel.a.namespace,
        **{f"out{code}": f"meta l4proto udp @th,64,8 4 {outside} {code}" for code in range(4)},
    )
    arrived = Wire(
        tunnel.b.namespace,
        kept=f'iifname "{tunnel.b.daemon.name}" {_echo(inner)} {family} ecn {bits}',
    )
    before = wire.counts()
    ping(
        tunnel.a.namespace,
        tunnel.b.inner4 if inner == 4 else tunnel.b.inner6,
        5,
        options=("-Q", str(bits)),
        once=True,
    )
    counts = wire.counts()
    shown = {code for code in range(4) if counts[f"out{code}"] > before[f"out{code}"]}
    assert shown and shown <= OUTWARD[bits], counts
    assert arrived["kept"] == 5


@pytest.mark.parametrize("outer", [4, 6], ids=["over-v4", "over-v6"])
@pytest.mark.parametrize("inner", [4, 6], ids=["v4-inside", "v6-inside"])
@pytest.mark.parametrize(
    ("bits", "expected"), [(0, 0), (1, 3), (2, 3), (3, 3)], ids=["not-ECT", "ECT1", "ECT0", "CE"]
)
def test_congestion_met_outside_is_told_inside(
    lab: Lab, bits: int, expected: int, inner: int, outer: int
) -> None:
    """RFC 6040, except that a packet whose sender knows no ECN is delivered unmarked and not
    dropped."""
    tunnel = lab.tunnel(outer=outer)
    tunnel.session()
    _congest(tunnel, outer)
    family = "ip" if inner == 4 else "ip6"
    arrived = Wire(
        tunnel.b.namespace,
        **{
            f"in{code}": f'iifname "{tunnel.b.daemon.name}" {_echo(inner)} {family} ecn {code}'
            for code in range(4)
        },
    )
    ping(
        tunnel.a.namespace,
        tunnel.b.inner4 if inner == 4 else tunnel.b.inner6,
        5,
        options=("-Q", str(bits)),
        once=True,
    )
    counts = arrived.counts()
    assert counts[f"in{expected}"] == 5, counts


def _echo(inner: int) -> str:
    return "icmp type echo-request" if inner == 4 else "icmpv6 type echo-request"


def _congest(tunnel: Tunnel, outer: int) -> None:
    """Every data message that reaches b has met a congested router."""
    field = "ip" if outer == 4 else "ip6"
    tunnel.b.namespace.nft(
        "table inet congestion {\nchain prerouting {\ntype filter hook prerouting priority 0;\n"
        f'iifname "veth" meta l4proto udp @th,64,8 4 {field} ecn set ce\n}}\n}}'
    )
