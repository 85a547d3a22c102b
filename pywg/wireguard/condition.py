"""Why a peer has no session, or how it is, in words: what a report says, decided.

Pure: plain values in, plain values out. Knows neither sockets nor colours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pywg.keys import PublicKey
from pywg.wireguard.status import Notice, PeerStatus, PeerTrace, Report

# An answer to data is due within KEEPALIVE_TIMEOUT (whitepaper 6.5): less says nothing.
SILENCE_MS = 10_000
# One initiation may get lost on any path; the second is sent some five seconds after it.
ASKED_IN_VAIN = 2
ANSWERED_IN_VAIN = 2
# A session is renewed before it is so old (REJECT_AFTER_TIME), if anything is sent.
SESSION_S = 180
# What was noted so long ago, and not again, is over.
RECENT_MS = 60_000

# ICMP, by the word of a notice.
_UNREACHABLE = {
    "port_unreachable": "nobody listens on that port (ICMP port unreachable{by})",
    "host_unreachable": "the host cannot be reached (ICMP host unreachable{by})",
    "net_unreachable": "the network cannot be reached (ICMP network unreachable{by})",
    "prohibited": "a firewall forbids it (ICMP administratively prohibited{by})",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """``word``: for programs, one of WORDS. ``text``: for people, one line. ``is_healthy``: there
    is nothing to say that wg does not say."""

    word: str
    text: str
    is_healthy: bool = False


WORDS = {
    "connected": "there is a session, and nothing to complain of",
    "idle": "nothing was sent, so nothing was tried",
    "asking": "a handshake was sent a moment ago",
    "down": "the interface is down, so nothing is tried",
    "unknown": "whoever serves the interface does not say more than wg shows",
    "no_answer": "handshakes have no answer",
    "wrong_answer": "answers do not decrypt: another preshared key, or other keys",
    "under_load": "the peer asks for a cookie",
    "port_unreachable": "ICMP: nobody listens on the port",
    "host_unreachable": "ICMP: the host cannot be reached",
    "net_unreachable": "ICMP: the network cannot be reached",
    "prohibited": "ICMP: a firewall forbids it",
    "no_route": "this host has no route to the endpoint",
    "not_let_out": "a firewall of this host lets nothing out",
    "unconfirmed": "handshakes of the peer are answered and never confirmed",
    "old_timestamp": "handshakes of the peer are older than earlier ones: its clock, "
    "or somebody repeats them",
    "no_endpoint": "packets wait, and nobody knows where the peer is",
    "silent": "data was sent, and nothing at all came back",
    "disallowed_source": "the peer sends from addresses that are not in its AllowedIPs",
    "hole": "long packets seem not to arrive, shorter ones do",
    "too_big": "ICMP: packets are longer than the path takes; for an endpoint of IPv6 only",
}


def of_peer(peer: PeerStatus, report: Report | None, now_s: int) -> Condition:
    """The condition of a peer; ``now_s`` is Unix time. ``report`` is None where another program
    than pywg serves the interface."""
    age_s = now_s - peer.last_handshake_ns // 1_000_000_000
    has_handshake = peer.last_handshake_ns != 0 and age_s <= SESSION_S
    if report is None:
        known = "connected" if has_handshake else "unknown"
        return Condition(known, WORDS[known], is_healthy=True)
    if report.other.get("up") == "false":
        return Condition("down", WORDS["down"], is_healthy=True)
    # A peer with which nothing was tried, and of which nothing came, is left out of the report.
    trace = report.peers.get(peer.public_key, PeerTrace(has_session=has_handshake))
    notices = {n.kind: n for n in report.notices if n.key == peer.public_key}
    return (
        _refused(trace, notices)
        or _unanswered(peer, trace)
        or _complaint(trace, notices)
        or _healthy(trace)
    )


def complaints(
    peers: Iterable[PeerStatus], report: Report, now_s: int
) -> dict[PublicKey, Condition]:
    """Of those of which there is something to say that wg does not say."""
    found = {peer.public_key: of_peer(peer, report, now_s) for peer in peers}
    return {key: state for key, state in found.items() if not state.is_healthy}


def _refused(trace: PeerTrace, notices: dict[str, Notice]) -> Condition | None:
    """What came in the place of a session."""
    kind = trace.refused
    notice = notices.get(kind)
    # It may be somebody else who sends such things, while the peer is heard.
    if trace.heard_ms_ago is not None and notice and trace.heard_ms_ago < notice.last_ms_ago:
        return None
    where = f"from {notice.remote} " if notice and notice.remote else ""
    match kind:
        case "":
            return None
        case "under_load" if trace.asked < ASKED_IN_VAIN:
            return None  # what it asks for is sent at once
        case "wrong_answer":
            text = (
                f"an answer {where}does not fit our keys: the preshared key differs, "
                "or it was made for another key"
            )
        case "under_load":
            text = f"{_asked(trace)}; the peer is under load and asks for a cookie"
        case "no_route":
            text = "this host has no route to the endpoint"
        case "not_let_out":
            text = "this host does not let datagrams out to the endpoint: a firewall"
        case "old_timestamp":
            text = (
                f"a handshake {where}is older than one before: "
                "the peer's clock was set back, or somebody repeats it"
            )
        case _ if kind in _UNREACHABLE:
            by = f" from {notice.address}" if notice and notice.address else ""
            text = f"refused: {_UNREACHABLE[kind].format(by=by)}"
        case _:
            text = kind.replace("_", " ")  # of a newer core
    return Condition(kind, text)


def _unanswered(peer: PeerStatus, trace: PeerTrace) -> Condition | None:
    if trace.asked >= ASKED_IN_VAIN:
        heard = _heard(trace)
        text = (
            f"{_asked(trace)}, no answer{heard}: a wrong key or port, a firewall, or nobody there"
        )
        return Condition("no_answer", text)
    if trace.answered >= ANSWERED_IN_VAIN:
        text = (
            f"answered {trace.answered} handshakes, none was confirmed: "
            "the preshared key differs, or our answers do not arrive"
        )
        return Condition("unconfirmed", text)
    is_silent = trace.is_silent and (trace.heard_ms_ago or SILENCE_MS) >= SILENCE_MS
    if trace.unanswered_ms >= SILENCE_MS or is_silent:
        return Condition("silent", f"silent: data was sent, and nothing came back{_heard(trace)}")
    waiting = trace.dropped.get("no_endpoint", 0)
    if waiting and peer.endpoint is None:
        text = f"no endpoint: nobody knows where the peer is, {_packets(waiting)} dropped"
        return Condition("no_endpoint", text)
    return None


def _complaint(trace: PeerTrace, notices: dict[str, Notice]) -> Condition | None:
    """What is wrong although there is a session."""
    for kind in ("disallowed_source", "hole", "too_big"):
        notice = notices.get(kind)
        if notice is None or notice.last_ms_ago > RECENT_MS:
            continue
        if kind == "disallowed_source":
            count = trace.dropped.get(kind, notice.count)
            text = (
                f"{_packets(count)} from {notice.address} dropped: "
                "that address is not in the peer's AllowedIPs"
            )
        elif kind == "hole":
            text = (
                f"packets of {notice.mtu} bytes seem not to arrive, shorter ones do: "
                "try a lower MTU"
            )
        else:
            takes = f", which takes {notice.mtu} bytes" if notice.mtu else ""
            text = f"packets are too long for the path{takes}: try a lower MTU"
        return Condition(kind, text)
    return None


def _healthy(trace: PeerTrace) -> Condition:
    if trace.asked or trace.answered:
        word = "asking"
    else:
        word = "connected" if trace.has_session else "idle"
    return Condition(word, WORDS[word], is_healthy=True)


def of_interface(report: Report) -> list[str]:
    """What is to be said of nobody that is a peer: one line each, the latest first."""
    recent = [n for n in report.notices if n.last_ms_ago <= RECENT_MS]
    lines = []
    if "listen_error" in report.other:
        error = report.other["listen_error"]
        lines.append(f"its port cannot be had ({error}), so nothing is received; it is tried again")
    for notice in sorted(recent, key=lambda n: n.last_ms_ago):
        times = f" ({notice.count} times)" if notice.count > 1 else ""
        match notice.kind:
            case "stranger":
                lines.append(
                    f"a handshake from {notice.remote}{times}: its public key {notice.key} "
                    "is no peer here"
                )
            case "other_key":
                lines.append(
                    f"a handshake from {notice.remote}{times}: it is for another public key "
                    "than this interface's"
                )
            case "no_peer":
                lines.append(
                    f"packets to {notice.address}{times}: "
                    "no peer has that address in its AllowedIPs"
                )
            case _:
                pass
    return lines


def _asked(trace: PeerTrace) -> str:
    times = "time" if trace.asked == 1 else "times"
    return f"asked {trace.asked} {times} in {_seconds(trace.asked_for_ms)}"


def _heard(trace: PeerTrace) -> str:
    if trace.heard_ms_ago is None:
        return ""
    return f" (last heard {_seconds(trace.heard_ms_ago)} ago)"


def _seconds(milliseconds: int) -> str:
    seconds = round(milliseconds / 1000)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _packets(count: int) -> str:
    return f"{count} {'packet' if count == 1 else 'packets'}"
