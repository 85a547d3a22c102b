"""The kernel refuses what it offered: pywg steps down, says so once, and the data flows on.

Two refusals are made by strace in the place of the kernel; the third, a train larger than the path
allows, is real.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.lab.daemon import Daemon
from tools.lab.lab import PORT, Lab
from tools.lab.overlay import make_overlay
from tools.lab.programs import Program
from tools.lab.tracing import failing, injected
from tools.lab.traffic import exchange, ping
from tools.lab.waiting import wait_until

BYTES = 8 << 20


def lines_about(daemon: Daemon, pattern: str) -> list[str]:
    return [line for line in daemon.log().splitlines() if re.search(pattern, line, re.IGNORECASE)]


@pytest.mark.parametrize("outer", [4, 6], ids=["over-v4", "over-v6"])
@pytest.mark.parametrize("error", ["EIO", "EMSGSIZE"])
def test_an_error_for_a_train_switches_trains_off_for_that_destination_alone(
    lab: Lab, subject: Program, tmp_path: Path, error: str, outer: int
) -> None:
    tunnel = lab.tunnel(outer=outer)
    tunnel.session()
    trace = tmp_path / "trace"
    daemon = tunnel.a.daemon

    # EMSGSIZE can be the answer to a datagram of before (over IPv6): it is believed when it stays.
    times = "20..39+1" if error == "EMSGSIZE" else "20+20"

    def is_refused() -> bool:
        # On a busy machine packets leave one by one, and those may be the ones that are refused.
        with failing(daemon.pid, "sendmmsg,sendmsg", error, times, trace):
            exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4, BYTES, 1 << 20)
        return not subject.is_pywgd or "gso_refused" in daemon.report()

    wait_until(is_refused, "a train is refused")
    assert injected(trace) >= 1
    exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner6, BYTES, BYTES)
    if subject.is_pywgd:
        report = daemon.report()
        assert report["gso_refused"] == tunnel.b.endpoint(outer)
        assert report["offload_udp_gso"] == "active", (
            "one narrow path is no reason to give up on all"
        )
        assert len(lines_about(daemon, rf"{re.escape(tunnel.b.endpoint(outer))}.*")) >= 1, (
            daemon.log()
        )


@pytest.mark.parametrize("outer", [4, 6], ids=["over-v4", "over-v6"])
def test_a_path_narrower_than_the_tunnel_still_carries_it(
    lab: Lab, subject: Program, outer: int
) -> None:
    """Trains of full-sized datagrams are refused by the kernel (EMSGSIZE); single ones are
    fragmented."""
    tunnel = lab.tunnel(outer=outer)
    for side in (tunnel.a, tunnel.b):
        side.namespace.ip("link", "set", "veth", "mtu", "1280")
    tunnel.session()
    exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4, BYTES, BYTES)
    exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner6, BYTES, BYTES)
    if subject.is_pywgd:
        for side, other in ((tunnel.a, tunnel.b), (tunnel.b, tunnel.a)):
            report = side.daemon.report()
            assert report["offload_udp_gso"] in ("active", "unsupported")
            if report["offload_udp_gso"] == "active":
                assert report["gso_refused"] == other.endpoint(outer)
                told = lines_about(
                    side.daemon, rf"(gso|train|EMSGSIZE).*{PORT}|{PORT}.*(gso|train|EMSGSIZE)"
                )
                assert len(told) == 1, told


def test_a_path_that_narrows_under_way_goes_on_carrying(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.session()

    def narrow() -> None:
        for side in (tunnel.a, tunnel.b):
            side.namespace.ip("link", "set", "veth", "mtu", "1300")

    exchange(
        tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4, 2 * BYTES, BYTES, midway=narrow
    )
    tunnel.ping()


def test_a_superpacket_refused_by_tun_ends_superpackets(
    lab: Lab, subject: Program, tmp_path: Path
) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    trace = tmp_path / "trace"
    daemon = tunnel.b.daemon

    def is_stepped_down() -> bool:
        exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4, BYTES, 1 << 20)
        return not subject.is_pywgd or daemon.report()["offload_tun_tso"] != "active"

    # On a busy machine packets come one by one, and those may be the ones that are refused.
    with failing(daemon.pid, "writev", "EINVAL", "20+20", trace):
        wait_until(is_stepped_down, "a superpacket is refused")
    exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner6, BYTES, BYTES)
    if subject.is_pywgd:
        assert injected(trace) >= 1, "superpackets are written with writev"
        assert daemon.report()["offload_tun_tso"] == "stepped_down EINVAL"
        assert len(lines_about(daemon, r"tun_tso.*EINVAL|EINVAL.*tun_tso")) == 1, daemon.log()


@pytest.mark.pywgd_only
def test_a_superpacket_in_a_tunnel_refused_by_tun_ends_only_those(lab: Lab, tmp_path: Path) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    trace = tmp_path / "trace"
    daemon = tunnel.b.daemon
    if daemon.report()["offload_tun_tunnel"] != "active":
        pytest.skip("this kernel has no superpackets in UDP tunnels")
    for here, there, number in ((tunnel.a, tunnel.b, 1), (tunnel.b, tunnel.a, 2)):
        said = make_overlay(
            here.namespace,
            "vxlan",
            (here.inner4, there.inner4),
            f"10.88.0.{number}/24",
            checksums=False,
            mtu=1370,
        )
        if said is not None:
            pytest.skip(f"this kernel cannot make vxlan interfaces: {said}")
    ping(tunnel.a.namespace, "10.88.0.2", 1)

    def is_stepped_down() -> bool:
        exchange(tunnel.a.namespace, tunnel.b.namespace, "10.88.0.2", BYTES, 1 << 20)
        return daemon.report()["offload_tun_tunnel"] != "active"

    with failing(daemon.pid, "writev", "EINVAL", "20+20", trace):
        wait_until(is_stepped_down, "a superpacket is refused")
    exchange(tunnel.a.namespace, tunnel.b.namespace, "10.88.0.2", BYTES, BYTES)
    report = daemon.report()
    assert report["offload_tun_tunnel"] == "stepped_down EINVAL"
    assert report["offload_tun_tso"] == "active"
    assert len(lines_about(daemon, r"tun_tunnel.*EINVAL|EINVAL.*tun_tunnel")) == 1, daemon.log()


@pytest.mark.parametrize(
    "error", ["ENOBUFS", "EAGAIN", "EPERM", "ENETUNREACH", "EHOSTUNREACH", "EINTR", "ENOMEM"]
)
def test_a_send_that_fails_for_a_moment_costs_packets_and_no_more(
    lab: Lab, tmp_path: Path, error: str
) -> None:
    tunnel = lab.tunnel(log_level="error")
    tunnel.session()
    trace = tmp_path / "trace"
    with failing(tunnel.a.daemon.pid, "sendmmsg,sendmsg", error, "10..100+15", trace):
        exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4, BYTES, 1 << 20)
    assert injected(trace) >= 1
    exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4, BYTES, BYTES)


@pytest.mark.parametrize("error", ["EINTR", "EAGAIN", "ENOBUFS", "ENOMEM"])
@pytest.mark.parametrize("call", ["recvmmsg,recvmsg", "read,readv", "write,writev"])
def test_any_other_call_that_fails_for_a_moment_costs_packets_and_no_more(
    lab: Lab, tmp_path: Path, call: str, error: str, subject: Program
) -> None:
    if not subject.is_pywgd:
        pytest.skip("wireguard-go ends when a read from TUN fails")
    tunnel = lab.tunnel(log_level="error")
    tunnel.session()
    with failing(tunnel.a.daemon.pid, call, error, "10..100+15", tmp_path / "trace"):
        exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4, BYTES, 1 << 20)
    exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4, BYTES, BYTES)


def test_a_firewall_that_forbids_sending_for_a_while_is_outlived(
    lab: Lab, subject: Program
) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    tunnel.a.namespace.nft(
        "table inet wall {\nchain output {\ntype filter hook output priority 0;\n"
        f"udp dport {PORT} reject\n}}\n}}\n"
    )
    for number in range(50):
        tunnel.a.namespace.attempt(
            "ping", "-n", "-c", "1", "-W", "0.02", "-s", str(number), tunnel.b.inner4
        )
    noise = lines_about(tunnel.a.daemon, r"EPERM|not permitted|send")
    tunnel.a.namespace.nft("delete table inet wall")
    tunnel.ping()
    if subject.is_pywgd:
        assert len(noise) <= 5, "refused sends are logged at most once a second"
