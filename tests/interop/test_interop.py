"""pywg and its peers: either may begin, over either family, with and without a preshared key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tools.lab import programs
from tools.lab.lab import PORT, Lab
from tools.lab.namespaces import add_address
from tools.lab.programs import Missing, Program
from tools.lab.traffic import exchange, iperf3, received_bits_per_second
from tools.lab.waiting import wait_until
from tools.lab.wire import Wire

PEERS: dict[str, Callable[[], Program]] = {
    "wireguard-go-debian": programs.wireguard_go_debian,
    "wireguard-go": programs.wireguard_go_current,
    "boringtun": programs.boringtun,
    "gotatun": programs.gotatun,
}


@pytest.fixture(params=PEERS)
def partner(request: pytest.FixtureRequest) -> Program:
    try:
        return PEERS[request.param]()
    except Missing as missing:
        if request.param == "wireguard-go-debian":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.mark.parametrize("psk", [False, True], ids=["no-psk", "psk"])
@pytest.mark.parametrize("outer", [4, 6], ids=["over-v4", "over-v6"])
@pytest.mark.parametrize("beginner", ["pywg", "peer"])
def test_they_talk_whoever_begins(
    lab: Lab, partner: Program, beginner: str, outer: int, psk: bool
) -> None:
    # Only who begins knows where the other is. Side a is pywg.
    begins = "a" if beginner == "pywg" else "b"
    tunnel = lab.tunnel(b=partner, outer=outer, psk=psk, knows=begins, log_level="error")
    wires = (Wire(tunnel.a.namespace), Wire(tunnel.b.namespace))
    tunnel.ping(sender=begins)
    tunnel.ping(sender="b" if begins == "a" else "a")
    assert wires[0 if begins == "a" else 1]["initiation_output"] == 1
    assert wires[0 if begins == "a" else 1]["initiation_input"] == 0
    exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner6, 1 << 20, 1 << 20)
    report = iperf3(
        tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4, 1, reverse=beginner == "peer"
    )
    assert received_bits_per_second(report) > 1e6


@pytest.mark.parametrize("beats", ["a", "b"], ids=["pywg", "peer"])
def test_keepalives_are_sent_and_taken(lab: Lab, partner: Program, beats: str) -> None:
    # By one side only: a keepalive that arrives puts off the receiver's own for its whole interval.
    tunnel = lab.tunnel(b=partner, keepalive=1, beats=beats, log_level="error")
    wire = Wire(tunnel.a.namespace)
    way = "keepalive_output" if beats == "a" else "keepalive_input"
    wait_until(lambda: wire[way] >= 3, "three keepalives", 12, every=0.05)
    assert int(tunnel.a.daemon.peer(tunnel.b.key.public)["handshake"]) > 0
    assert int(tunnel.b.daemon.peer(tunnel.a.key.public)["handshake"]) > 0


def test_a_moving_peer_is_followed_by_either(lab: Lab, partner: Program) -> None:
    if partner.label == "boringtun":
        # By default it ties a socket to the address it has first, and cannot move at all.
        partner = replace(partner, arguments=(*partner.arguments, "--disable-connected-udp"))
    # Over IPv6: of a source address that is gone wireguard-go learns over IPv4 only by fifteen
    # seconds of silence.
    tunnel = lab.tunnel(b=partner, outer=6, log_level="error")
    tunnel.session()
    moves = ((tunnel.a, tunnel.b, "a", "2001:db8::71"), (tunnel.b, tunnel.a, "b", "2001:db8::72"))
    for here, there, sender, new in moves:
        add_address(here.namespace, "veth", f"{new}/64")
        here.namespace.ip("address", "delete", f"{here.outer6}/64", "dev", "veth")
        tunnel.ping(1, sender)
        endpoint = there.daemon.peer(here.key.public)["endpoint"]
        assert endpoint == f"[{new}]:{PORT}"


def test_either_may_be_restarted(lab: Lab, partner: Program, subject: Program) -> None:
    tunnel = lab.tunnel(b=partner, log_level="error")
    tunnel.session()
    for label, side, program in (("a", tunnel.a, subject), ("b", tunnel.b, partner)):
        side.daemon.close()
        side.daemon = lab.daemon(program, side.namespace, side.daemon.name, log_level="error")
        side.daemon.setconf(tunnel.configuration(label))
        side.daemon.up(f"{side.inner4}/24", f"{side.inner6}/64")
        tunnel.ping(sender=label)
