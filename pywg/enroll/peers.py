"""The peers of a server's file: one more, another name, one less. Pure: text in, text out.

Invariant: what is given back parses, no address is two peers', and lines that say something of
others are as they were.
"""

from __future__ import annotations

from pywg.config import Config, PeerSection, document, parse
from pywg.enroll.server import Server
from pywg.errors import PywgError


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


def _checked(server: Server, text: str) -> str:
    parse(text, str(server.path))
    return text


def saves_itself(config: Config) -> bool:
    """Whether `down` will write what runs, and so undo a change that only the file has."""
    return config.interface.save_config


def require_own_psk(peer: PeerSection) -> None:
    if peer.preshared_key_file is not None:
        raise PywgError(
            f"its preshared key is in {peer.preshared_key_file}: put a new one there "
            "(pywg genpsk), then: pywg reload"
        )
