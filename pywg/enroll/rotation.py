"""Other keys for a client that is connected, so that nothing is lost on the way. Pure.

A preshared key is only looked at in handshakes, so both ends take the new one while a session
lasts. A public key *is* the peer: another one is another peer, and an address has one owner. So the
next peer stands beside the old one without addresses, and with a preshared key that nobody else
knows, the gate: the client's first initiation with its new key shows that it has it, and cannot
become a session before the addresses are its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pywg.config import Endpoint, PeerSection, document
from pywg.enroll import client
from pywg.enroll.client import Keys
from pywg.enroll.server import Server, find
from pywg.errors import PywgError
from pywg.keys import PresharedKey
from pywg.wireguard.changes import NO_PRESHARED_KEY, AllowedIPChange, Changes, PeerChange

# Until a session that is renewed after 120 s is of no use after 180 s: whitepaper, section 6.1.
WINDOW_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Rotated:
    """``text``: of the server's file by now. ``section``: what of it is new for the device.
    ``for_client``: the section that the client's file is made for, and ``keys`` those in it.
    ``what``: in words."""

    text: str
    section: PeerSection
    for_client: PeerSection
    keys: Keys
    what: str


def of_psk(server: Server, peer: PeerSection) -> Rotated:
    """Raises PywgError if the preshared key is not in the server's file."""
    if peer.preshared_key_file is not None:
        raise PywgError(
            f"its preshared key is in {peer.preshared_key_file}: put a new one there (pywg genpsk)"
        )
    psk = PresharedKey.generate()
    text = document.with_changed(server.text, peer.public_key, preshared_key=psk)
    changed = replace(peer, preshared_key=psk)
    keys = Keys(peer.public_key, None, psk)
    return Rotated(text, changed, changed, keys, "another preshared key")


def of_key_pair(server: Server, peer: PeerSection, keys: Keys) -> Rotated:
    """Raises PywgError if there is one already, or if the key is somebody's."""
    if server.next_key_of(peer) is not None:
        raise PywgError("this peer has a next key already: pywg peer rotate --finish")
    used = {other.public_key for other in server.config.peers}
    if keys.public in used or keys.public == server.public_key:
        raise PywgError(f"public key: {server.path} has it already")
    gated = PeerSection(keys.public, PresharedKey.generate(), replaces=peer.public_key)
    return Rotated(
        document.with_peer(server.text, gated),
        gated,
        replace(peer, public_key=keys.public),
        replace(keys, preshared=peer.preshared_key),
        "a next key; until that is seen, nothing changes",
    )


def client_text(text: str, path: Path, server: Server, peer: PeerSection, rotated: Rotated) -> str:
    """The client's file with what is new for it. Raises PywgError if it is not this client's."""
    private = rotated.keys.private
    return client.with_new_keys(
        text,
        str(path),
        server.public_key,
        peer.public_key,
        private=private,
        preshared=rotated.keys.preshared if private is None else None,
    )


def pair(server: Server, word: str) -> tuple[PeerSection, PeerSection]:
    """A peer, and the one that is to replace it. Raises PywgError if there is none."""
    old = find(server, word)
    new = server.next_key_of(old)
    if new is None:
        raise PywgError("this peer has no next key: pywg peer rotate --key makes one")
    return old, new


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
