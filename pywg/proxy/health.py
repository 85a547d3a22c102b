"""What /healthz says of a tunnel. Pure."""

from __future__ import annotations

import json

from pywg.rootless.messages import State

#: REJECT_AFTER_TIME of the whitepaper (section 6.1): a session that is older carries nothing.
REJECT_AFTER_S = 180


def verdict(state: State) -> str:
    """ "ok", "idle" before the first packet, "no handshake" when something was sent and no peer has
    ever answered, "stale" when peers that are kept alive have not answered for long. Without a
    keepalive an old handshake only says that nobody used the tunnel."""
    if state.handshake_age < 0:
        return "no handshake" if state.sent else "idle"
    if state.keepalive and state.handshake_age > REJECT_AFTER_S + state.keepalive:
        return "stale"
    return "ok"


def answer(state: State, connections: int, refused: int) -> tuple[int, str]:
    """A status of HTTP, and a JSON object."""
    said = verdict(state)
    values = {
        "status": said,
        "handshake_age_seconds": None if state.handshake_age < 0 else state.handshake_age,
        "sent_bytes": state.sent,
        "received_bytes": state.received,
        "connections": connections,
        "refused": refused,
    }
    return (200 if said in ("ok", "idle") else 503), json.dumps(values) + "\n"
