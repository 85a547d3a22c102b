"""All that a store said and what is to come of it: texts to entries, entries to peers, and which of
them the interface was given.

Knows no store and no socket. Invariant: a text that says nothing valid changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pywg.keys import PublicKey
from pywg.sources.merge import Merge, Static
from pywg.sources.news import Part, Whole
from pywg.sources.values import Entry, Said, read

Entries = tuple[tuple[str, Entry], ...]


class Roster:
    """``given`` is what the interface has of each peer; what is not there may be anything."""

    def __init__(self, static: Static) -> None:
        self.texts: dict[str, Entries] = {}
        self.problems: dict[str, tuple[str, ...]] = {}
        # Of each text as it was last read: most of a list that comes anew is the same.
        self._hashes: dict[str, int] = {}
        self.given: dict[PublicKey, Entry] = {}
        self.merge = Merge(static)

    def take(self, news: Whole | Part) -> tuple[set[PublicKey], list[str], dict[str, Entries]]:
        """Peers that may have to be others, what there is to tell, and the texts that changed."""
        said: dict[str, str | None] = dict(news.texts)
        if isinstance(news, Whole):
            said |= dict.fromkeys(self.texts.keys() - said.keys())
            said |= dict.fromkeys(self.problems.keys() - said.keys())
        changed: dict[str, Entries] = {}
        told: list[str] = []
        for name, text in said.items():
            self._read(name, text, changed, told)
        return self._note(changed, told), told, changed

    def restore(self, texts: Mapping[str, Mapping[str, Entry]]) -> set[PublicKey]:
        """The list of an earlier run."""
        return self._note({name: tuple(found.items()) for name, found in texts.items()}, [])

    def mappings(self) -> dict[str, dict[str, Entry]]:
        """All texts, as they are kept on disk."""
        return {name: dict(entries) for name, entries in self.texts.items()}

    def exchange(self, static: Static) -> tuple[set[PublicKey], set[PublicKey]]:
        """The file of the interface is another one: peers that may have to be others, and those
        that were the file's and are nobody's now."""
        old = self.merge.static
        if static == old:
            return set(), set()
        for key in static.keys:
            self.given.pop(key, None)
        self.merge = self.merge.with_static(static)
        orphans = {key for key in old.keys - static.keys if self.merge.peer(key) is None}
        return {*self.given, *self.merge.peers()}, orphans

    def forget_given(self) -> set[PublicKey]:
        """Nobody knows what the interface has: all is to be said again."""
        keys = {*self.given, *self.merge.peers()}
        self.given = {key: one for key, one in self.given.items() if self.merge.peer(key) is None}
        return keys

    def _read(
        self, name: str, text: str | None, changed: dict[str, Entries], told: list[str]
    ) -> None:
        if text is not None and self._hashes.get(name) == hash(text):
            return
        self.problems.pop(name, None)
        if text is None:
            self._hashes.pop(name, None)
            if name in self.texts:
                changed[name] = ()
            return
        self._hashes[name] = hash(text)
        said = _read(name, text)
        if said.problems:
            self.problems[name] = said.problems
            told.extend(said.problems)
        if not said.entries and said.problems:
            if name in self.texts:
                told.append(f"{name}: what it said before stays")
            return
        entries = tuple(said.entries.items())
        if entries != self.texts.get(name, ()):
            changed[name] = entries

    def _note(self, changed: Mapping[str, Entries], told: list[str]) -> set[PublicKey]:
        changes: dict[str, Entry | None] = {}
        for name, entries in changed.items():
            changes |= dict.fromkeys(one for one, _ in self.texts.get(name, ()))
            changes |= dict(entries)
            if entries:
                self.texts[name] = entries
            else:
                self.texts.pop(name, None)
        touched = self.merge.change(changes)
        told.extend(filter(None, map(self.merge.lost, changes)))
        return touched

    def skipped(self) -> tuple[int, Iterable[str]]:
        """How many problems there are, and what they are."""
        return (
            sum(map(len, self.problems.values())),
            (one for found in self.problems.values() for one in found),
        )


def _read(name: str, text: str) -> Said:
    """What others write may have us fail in ways nobody thought of: that is one text less."""
    try:
        return read(name, text)
    except Exception as error:
        return Said({}, (f"{name}: cannot be read ({type(error).__name__})",))
