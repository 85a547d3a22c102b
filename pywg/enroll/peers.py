"""The peers of a server's file: one more, another name, one less. Pure.

Invariant: what is given back parses, no address is two peers', and lines that say something of
others are as they were.
"""

from __future__ import annotations

from pywg.config import PeerSection, document, parse
from pywg.enroll.server import Server
from pywg.wireguard.changes import Changes, PeerChange


def added(server: Server, peer: PeerSection) -> str:
    return _checked(server, document.with_peer(server.text, peer))


def renamed(server: Server, peer: PeerSection, name: str) -> str:
    return _checked(server, document.with_changed(server.text, peer.public_key, name=name))


def removed(server: Server, peer: PeerSection) -> str:
    """With what was to replace it."""
    text = document.without_peer(server.text, peer.public_key)
    after = server.next_key_of(peer)
    if after is not None:
        text = document.without_peer(text, after.public_key)
    return _checked(server, text)


def removal(server: Server, peer: PeerSection) -> Changes:
    """The same for a running device."""
    after = server.next_key_of(peer)
    gone = (peer,) if after is None else (peer, after)
    return Changes(peers=tuple(PeerChange(one.public_key, remove=True) for one in gone))


def _checked(server: Server, text: str) -> str:
    parse(text, str(server.path))
    return text
