"""Other keys for a client that is connected, so that nothing is lost on the way. Pure.

A preshared key is only looked at in handshakes, so both ends take the new one while a session
lasts. A public key *is* the peer: another one is another peer, and an address has one owner. So the
next peer stands beside the old one without addresses, and with a preshared key that nobody else
knows, the gate: the client's first initiation with its new key shows that it has it, and cannot
become a session before the addresses are its own.
"""

from __future__ import annotations

from dataclasses import replace

from pywg.config import Endpoint, PeerSection, document
from pywg.enroll.client import Keys
from pywg.enroll.peers import require_own_psk
from pywg.enroll.server import Server
from pywg.errors import PywgError
from pywg.keys import PresharedKey, PublicKey
from pywg.wireguard.changes import NO_PRESHARED_KEY, AllowedIPChange, Changes, PeerChange

# Until a session that is renewed after 120 s is of no use after 180 s: whitepaper, section 6.1.
WINDOW_SECONDS = 60


def with_psk(server: Server, peer: PeerSection, psk: PresharedKey) -> str:
    """The server's file with another preshared key for a peer."""
    require_own_psk(peer)
    return document.with_changed(server.text, peer.public_key, preshared_key=psk)


def begun(server: Server, peer: PeerSection, key: PublicKey) -> tuple[str, PeerSection]:
    """The server's file with the peer that will be, and that peer. Raises PywgError."""
    if server.next_key_of(peer) is not None:
        raise PywgError("this peer has a next key already: pywg peer rotate --finish")
    if any(other.public_key == key for other in server.config.peers) or key == server.public_key:
        raise PywgError(f"public key: {server.path} has it already")
    gated = PeerSection(key, PresharedKey.generate(), replaces=peer.public_key)
    return document.with_peer(server.text, gated), gated


def finished(server: Server, old: PeerSection, new: PeerSection) -> str:
    """The server's file with the new key in the section of the old one; name, addresses and
    preshared key stay."""
    text = document.without_peer(server.text, new.public_key)
    return document.with_changed(text, old.public_key, public_key=new.public_key)


def takeover(old: PeerSection, new: PeerSection, endpoint: Endpoint) -> Changes:
    """For the running device, in one request: the addresses change hands.

    The new peer is made anew, since for five seconds after a response a peer sends no initiation
    (whitepaper, section 6.1); its keepalive makes it send one at once.
    """
    return Changes(
        peers=(
            PeerChange(old.public_key, remove=True),
            PeerChange(new.public_key, remove=True),
            PeerChange(
                new.public_key,
                preshared_key=old.preshared_key or NO_PRESHARED_KEY,
                endpoint=endpoint,
                persistent_keepalive=old.persistent_keepalive or 1,
                replace_allowed_ips=True,
                allowed_ips=tuple(map(AllowedIPChange, old.networks)),
            ),
        )
    )


def settled(old: PeerSection, new: PeerSection) -> Changes:
    """What remains when that is done: the keepalive that the file has."""
    return Changes(
        peers=(PeerChange(new.public_key, persistent_keepalive=old.persistent_keepalive or 0),)
    )


def with_other_psk(peer: PeerSection, psk: PresharedKey) -> PeerSection:
    return replace(peer, preshared_key=psk)


def as_client(old: PeerSection, keys: Keys) -> PeerSection:
    """The section that the client's new file is made for."""
    return replace(old, public_key=keys.public, preshared_key=keys.preshared)
