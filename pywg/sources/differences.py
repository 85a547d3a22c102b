"""From what a peer was given to what it is to have: a PeerChange with what differs and no more.

Pure. Invariant: an endpoint that was learned stays unless the store names another one, and nothing
is said of a peer that stays the same, so its session lives.
"""

from __future__ import annotations

from pywg.config import Endpoint
from pywg.config.values import network
from pywg.keys import PresharedKey, PublicKey
from pywg.sources.values import Entry
from pywg.wireguard.changes import NO_PRESHARED_KEY, AllowedIPChange, PeerChange


def difference(
    key: PublicKey, before: Entry | None, after: Entry | None, preshared: PresharedKey | None
) -> PeerChange | None:
    """None where there is none. ``preshared`` is what ``after`` refers to. Before None nobody knows
    what the peer was: all is said."""
    if after is None:
        return PeerChange(key, remove=True)
    if before is not None and before == after:
        return None
    keyed = preshared or NO_PRESHARED_KEY
    has_key = before is None or _reference(before) != _reference(after)
    keepalive = (
        None if before is not None and before.keepalive == after.keepalive else (after.keepalive)
    )
    moved = after.endpoint and (before is None or before.endpoint != after.endpoint)
    routed = before is None or set(before.networks) != set(after.networks)
    change = PeerChange(
        key,
        preshared_key=keyed if has_key else None,
        endpoint=_endpoint(after.endpoint) if moved else None,
        persistent_keepalive=keepalive,
        replace_allowed_ips=routed,
        allowed_ips=tuple(AllowedIPChange(network(one)) for one in after.networks)
        if routed
        else (),
    )
    return None if change == PeerChange(key) else change


def _reference(entry: Entry) -> tuple[str, str]:
    return entry.preshared_file, entry.preshared_encrypted


def _endpoint(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    return Endpoint(host.removeprefix("[").removesuffix("]"), int(port))
