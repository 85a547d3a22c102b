"""Entries of a store become the peers that an interface is to have beside those of its file.

Pure. The file wins; then, of entries with one public key, the one whose name sorts first, and of
those that claim one allowed IP likewise. So all gateways come to the same end, whatever the order
in which they heard of it. ``Merge`` keeps up with changes; ``merged`` says the same at once, and is
what tests compare with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from pywg.config import PeerSection
from pywg.keys import PublicKey
from pywg.sources.claims import Claims
from pywg.sources.values import Entry
from pywg.wireguard.addresses import network_text


@dataclass(frozen=True, slots=True)
class Static:
    """What the file of the interface has: nothing of it is a store's to change."""

    keys: frozenset[PublicKey] = frozenset()
    networks: frozenset[str] = frozenset()

    @classmethod
    def of(cls, peers: Iterable[PeerSection]) -> Static:
        peers = list(peers)
        return cls(
            frozenset(peer.public_key for peer in peers),
            frozenset(network_text(one) for peer in peers for one in peer.networks),
        )


def merged(static: Static, entries: Mapping[str, Entry]) -> dict[PublicKey, Entry]:
    """What each peer is to be, by its key."""
    chosen: dict[PublicKey, Entry] = {}
    taken = set(static.networks)
    for _, entry in sorted(entries.items()):
        if entry.public_key in static.keys or entry.public_key in chosen:
            continue
        networks = tuple(one for one in entry.networks if one not in taken)
        taken.update(entry.networks)
        chosen[entry.public_key] = replace(entry, networks=networks)
    return chosen


class Merge:
    """The same, step by step."""

    def __init__(self, static: Static) -> None:
        self.static = static
        self.entries: dict[str, Entry] = {}
        self._keys: Claims[PublicKey] = Claims()
        self._networks: Claims[str] = Claims()

    def change(self, changes: Mapping[str, Entry | None]) -> set[PublicKey]:
        """Entries that are new or others, None for those that are gone. The answer: the peers that
        may have to be others now."""
        touched: set[PublicKey] = set()
        for name, entry in changes.items():
            before = self.entries.get(name)
            if before == entry:
                continue
            if before is not None:
                self._leave(name, before, touched)
            if entry is not None:
                self._enter(name, entry, touched)
        return touched

    def peer(self, key: PublicKey) -> Entry | None:
        """What a peer is to be; None for one that no entry asks for, or that is the file's."""
        name = self._keys.holder(key)
        if name is None or key in self.static.keys:
            return None
        entry = self.entries[name]
        networks = tuple(
            one
            for one in entry.networks
            if one not in self.static.networks and self._networks.holder(one) == name
        )
        return entry if len(networks) == len(entry.networks) else replace(entry, networks=networks)

    def peers(self) -> Iterable[PublicKey]:
        """All that there are to be, or that the file has; each may come more than once."""
        return (entry.public_key for entry in self.entries.values())

    def with_static(self, static: Static) -> Merge:
        """With another file."""
        other = Merge(static)
        other.change(self.entries)
        return other

    def lost(self, name: str) -> str:
        """What an entry does not get, and who has it, as a line; empty where it gets everything."""
        entry = self.entries.get(name)
        if entry is None:
            return ""
        if entry.public_key in self.static.keys:
            return f"{name}: {entry.public_key} is a peer of the interface's file, which wins"
        holder = self._keys.holder(entry.public_key)
        if holder != name:
            return f"{name}: {entry.public_key} is also in {holder}, which wins"
        for one in entry.networks:
            if one in self.static.networks:
                return f"{name}: {one} is a peer's of the interface's file, which wins"
            if (holder := self._networks.holder(one)) != name:
                return f"{name}: {one} is also claimed by {holder}, which wins"
        return ""

    def disputes(self) -> int:
        """How many keys and allowed IPs more than one entry claims."""
        return self._keys.disputes() + self._networks.disputes()

    def _enter(self, name: str, entry: Entry, touched: set[PublicKey]) -> None:
        key = entry.public_key
        touched.add(key)
        before = self._keys.holder(key)
        self.entries[name] = entry
        self._keys.add(key, name)
        if self._keys.holder(key) == name:
            if before is not None:
                self._release(before, self.entries[before], touched)
            self._claim(name, entry, touched)

    def _leave(self, name: str, entry: Entry, touched: set[PublicKey]) -> None:
        key = entry.public_key
        touched.add(key)
        was_holder = self._keys.holder(key) == name
        self._keys.remove(key, name)
        if was_holder:
            self._release(name, entry, touched)
            after = self._keys.holder(key)
            if after is not None:
                self._claim(after, self.entries[after], touched)
        del self.entries[name]

    def _claim(self, name: str, entry: Entry, touched: set[PublicKey]) -> None:
        """An entry that has its key claims its networks, unless the file has the key."""
        if entry.public_key in self.static.keys:
            return
        for one in entry.networks:
            before = self._networks.holder(one)
            self._networks.add(one, name)
            if before is not None and self._networks.holder(one) == name:
                touched.add(self.entries[before].public_key)

    def _release(self, name: str, entry: Entry, touched: set[PublicKey]) -> None:
        if entry.public_key in self.static.keys:
            return
        for one in entry.networks:
            self._networks.remove(one, name)
            after = self._networks.holder(one)
            if after is not None:
                touched.add(self.entries[after].public_key)
