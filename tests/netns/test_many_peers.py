"""Ten thousand peers in one go, under load: the tunnel with one of them goes on, all are shown, and
their memory is used again."""

from __future__ import annotations

import time

import pytest

from tools.lab.keys import new_key
from tools.lab.lab import Lab
from tools.lab.stream import SOON, Stream

pytestmark = pytest.mark.pywgd_only
COUNT = 10_000


def strangers() -> str:
    sections = []
    for number in range(COUNT):
        network = f"10.{100 + number // 250}.{number % 250}.0/24"
        key = new_key().public
        sections.append(f"[Peer]\nPublicKey = {key}\nAllowedIPs = {network}\n")
    return "".join(sections)


def test_they_are_set_under_load_and_go_again(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    daemon, own = tunnel.a.daemon, tunnel.configuration("a")
    many = own + strangers()
    before = int(daemon.report()["memory_bytes"])
    with Stream(tunnel.b.namespace, tunnel.a.namespace, tunnel.a.inner4) as stream:
        stream.flows()
        began = time.monotonic()
        daemon.wg("syncconf", daemon.name, "/dev/stdin", text=many)
        assert time.monotonic() - began < 20
        stream.flows(SOON)
        assert len(daemon.show("dump")) == COUNT + 2
        daemon.wg("syncconf", daemon.name, "/dev/stdin", text=own)
        stream.flows(SOON)
    assert len(daemon.show("dump")) == 2
    grown = int(daemon.report()["memory_bytes"]) - before
    assert grown < COUNT * 4096, grown
    # A second time it takes no more: what was taken is used again.
    daemon.wg("syncconf", daemon.name, "/dev/stdin", text=many)
    daemon.wg("syncconf", daemon.name, "/dev/stdin", text=own)
    assert int(daemon.report()["memory_bytes"]) - before <= grown
    tunnel.ping()
