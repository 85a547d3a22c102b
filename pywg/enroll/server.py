"""A server's file as it is read: its text, what that says, and who its clients are.

Knows no file but this one. Invariant: what is found here is what the text says; nothing is cached
from before.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from pywg.config import (
    Config,
    Endpoint,
    IPAddress,
    IPNetwork,
    PeerSection,
    Position,
    comments,
    keyfiles,
    parse,
    read,
    values,
)
from pywg.config.values import BadValue, Reading
from pywg.enroll import pool
from pywg.errors import PywgError, hide_keys
from pywg.keys import PublicKey

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}")


@dataclass(frozen=True, slots=True)
class Server:
    """``name``: of its interface. ``config``: with the keys of key files in place. ``names``: of
    its peers, those that comments say too."""

    name: str
    path: Path
    text: str
    config: Config
    names: dict[PublicKey, str]

    @property
    def public_key(self) -> PublicKey:
        """Raises PywgError if the file has no private key."""
        private_key = self.config.interface.private_key
        if private_key is None:
            raise PywgError(f"{self.path}: [Interface] has no PrivateKey, so it has no clients")
        return private_key.public

    @property
    def port(self) -> int:
        """0 if the kernel chooses."""
        return self.config.interface.listen_port or 0

    @property
    def pools(self) -> tuple[IPNetwork, ...]:
        """Those of the file, else the networks of its addresses. Raises PywgError if there is
        none."""
        interface = self.config.interface
        found = interface.pools or tuple(
            address.network for address in interface.addresses if address.network.num_addresses > 1
        )
        if not found:
            raise PywgError(
                f"{self.path}: no addresses to give away: [Interface] needs a line such as "
                '"#!pywg Pool = 10.7.0.0/24"'
            )
        return found

    @property
    def taken(self) -> list[IPNetwork]:
        """All that is somebody's already."""
        own = [ip_network(address.ip) for address in self.config.interface.addresses]
        return [*own, *(network for peer in self.config.peers for network in peer.networks)]

    def free_addresses(self, more: Sequence[IPNetwork] = ()) -> tuple[IPNetwork, ...]:
        """The next of each pool that is apart from those before it, as a network of one; ``more``
        is taken, too. Raises PywgError where one is empty."""
        taken = [*self.taken, *more]
        used: list[IPNetwork] = []
        found = []
        for one in self.pools:
            if pool.overlap(one, used) is not None:
                continue  # two addresses of the server in one network are one pool
            used.append(one)
            address = pool.next_free(one, taken)
            if address is None:
                raise PywgError(
                    f"{self.path}: the pool {one} is empty: remove a peer, or write a larger one "
                    f'into "#!pywg Pool" of [Interface]'
                )
            found.append(ip_network(address))
        return tuple(found)

    def next_key_of(self, peer: PeerSection) -> PeerSection | None:
        """The peer that is to replace this one, while its key is being rotated."""
        after = (other for other in self.config.peers if other.replaces == peer.public_key)
        return next(after, None)


def load(name: str, path: Path) -> Server:
    """Raises ConfigError, or PywgError for what cannot be read."""
    text = read(path)
    config = keyfiles.load(parse(text, str(path)))
    return Server(name, path, text, config, comments.names(text, config))


def find(server: Server, word: str) -> PeerSection:
    """By name or by public key. Raises PywgError if there is none, or more than one."""
    peers = {peer.public_key: peer for peer in server.config.peers}
    by_name = [key for key in peers if server.names.get(key) == word]
    found = by_name or [key for key in peers if str(key) == word]
    if len(found) == 1:
        return peers[found[0]]
    if found:
        keys = ", ".join(map(str, found))
        raise PywgError(
            f"{len(found)} peers are called {word}: say which by its key: {_bare(keys)}"
        )
    close = difflib.get_close_matches(word, list(server.names.values()), n=1)
    hint = f'; did you mean "{close[0]}"?' if close else f" (see: pywg peer list {server.name})"
    raise PywgError(f'no peer is called "{word}"{hint}')


def _bare(keys: str) -> str:
    """Errors hide whatever looks like a key; of public ones enough is left to tell them apart."""
    return re.sub(r"([A-Za-z0-9+/]{8})[A-Za-z0-9+/]{35}=", r"\1...", keys)


def new_name(server: Server, word: str) -> str:
    """The same, if a peer can be called so. Raises PywgError if not, or if one is."""
    try:
        name = values.peer_name(word)
    except BadValue as error:
        raise PywgError(f"NAME: {error}") from None
    if hide_keys(name) != name:
        raise PywgError("NAME: this may be a key, and is no name")
    taken = {other.casefold(): other for other in server.names.values()}
    if name.casefold() in taken:
        raise PywgError(f'there is a peer called "{taken[name.casefold()]}" in {server.path}')
    return name


# ---- words of the command line


def endpoint(text: str, port: int) -> Endpoint:
    """``HOST[:PORT]`` as clients are told it. Raises PywgError."""
    whole = f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text
    if whole.endswith("]") or ":" not in whole:
        whole = f"{whole}:{port}"
    try:
        found = values.endpoint(whole, Reading(Position(), lambda *said: None))
    except BadValue as error:
        raise PywgError(f"endpoint: {error}") from None
    if found.port == 0:
        raise PywgError("endpoint: nothing can be sent to port 0")
    is_host = found.address() is not None or _is_host(found.host)
    if not is_host or values.squeeze(text) != text or "#" in text:  # it begins a comment
        raise PywgError("endpoint: expected the name or the address of this host")
    return found


def dns(texts: Sequence[str]) -> tuple[IPAddress | str, ...]:
    """Servers and search domains. Raises PywgError."""
    try:
        found = tuple(item for text in texts for item in values.dns_list(text))
    except BadValue as error:
        raise PywgError(f"dns: {error}") from None
    if any(isinstance(item, str) and not _is_host(item.lstrip("~.") or "x") for item in found):
        raise PywgError("dns: expected addresses of name servers, or domains")
    return found


def networks(texts: Sequence[str], option: str) -> tuple[IPNetwork, ...]:
    """Raises PywgError, which names the option."""
    reading = Reading(Position(), lambda *said: None)
    try:
        return tuple(network for text in texts for network in values.networks(text, reading))
    except BadValue as error:
        raise PywgError(f"{option}: {error}") from None


def _is_host(text: str) -> bool:
    labels = text.removesuffix(".").split(".")
    return len(text) <= 253 and all(_LABEL.fullmatch(label) for label in labels)
