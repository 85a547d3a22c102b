"""The peers of a running tunnel, each with what became of it. Pure.

The one place for why there is no handshake with a peer: what the device knows of its attempts
becomes a finding here.
"""

from __future__ import annotations

from collections.abc import Iterator

from pywg.doctor.facts import Tunnel
from pywg.doctor.finding import Finding, ok, warning

_SECOND_NS = 1_000_000_000


def judge(tunnel: Tunnel, now_s: float) -> Iterator[Finding]:
    for peer in tunnel.peers:
        if peer.last_handshake_ns > (now_s + 60) * _SECOND_NS:
            yield warning(
                "clock-stepped",
                f"{peer.label}: its last handshake is in the future: the clock was set back",
                f"{int(peer.last_handshake_ns / _SECOND_NS - now_s)} seconds ahead",
                "timedatectl set-ntp true",
            )
        if peer.last_handshake_ns and peer.trouble:
            yield warning(
                "peer-trouble",
                f"{peer.label}: {peer.trouble}",
                f"pywg show {tunnel.name}",
                "docs/no-handshake.md",
            )
        elif not peer.last_handshake_ns and (peer.trouble or (peer.sent and peer.endpoint)):
            yield warning(
                "no-handshake",
                f"{peer.label}: {peer.trouble or 'it was asked and has never answered'}",
                f"{peer.sent} bytes sent to {peer.endpoint}, no handshake",
                "the keys of both ends, and the port in their firewalls: docs/no-handshake.md",
            )
    if any(peer.last_handshake_ns for peer in tunnel.peers):
        yield ok("handshake", "there has been a handshake")
