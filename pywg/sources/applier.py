"""Gives an interface the peers of a roster: what differs, in batches, whole batches first.

Knows whom it gives them to only as a function. Invariant: what is refused is told and left out, and
keeps nothing else from being given.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence

from pywg.config.values import network
from pywg.errors import PywgError, UapiError
from pywg.keys import PresharedKey, PublicKey
from pywg.sources.cover import Cover
from pywg.sources.differences import difference
from pywg.sources.roster import Roster
from pywg.sources.values import Entry
from pywg.wireguard.changes import Changes, PeerChange

#: Peers in one request: packets wait while it is carried out.
BATCH = 500
_NOBODY_LISTENS = frozenset(
    {errno.ENOENT, errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EPROTO, errno.EAGAIN, errno.EPIPE}
)
Step = tuple[PeerChange, Entry | None]


class Applier:
    """``again`` has the peers that could not be given yet, and why."""

    def __init__(
        self,
        roster: Roster,
        give: Callable[[Changes], None],
        preshared: Callable[[Entry], PresharedKey | None],
        cover: Cover | None,
    ) -> None:
        """``give`` and ``preshared`` raise PywgError."""
        self._roster = roster
        self._give = give
        self._preshared = preshared
        self.cover = cover
        self.again: dict[PublicKey, str] = {}
        self.uncovered: set[PublicKey] = set()

    def apply(self, keys: Iterable[PublicKey], told: list[str]) -> bool:
        """Whether anything was changed. Those who leave come first: they make room, and are
        refused from then on."""
        steps: list[Step] = []
        for key in keys:
            was_told = self.again.pop(key, "")
            try:
                step = self._step(key)
            except PywgError as error:
                self._put_off(key, str(error), was_told, told)
                continue
            if step is not None:
                steps.append(step)
        steps.sort(key=lambda step: step[1] is not None)
        for at in range(0, len(steps), BATCH):
            self._carry_out(steps[at : at + BATCH], told)
        return bool(steps)

    def remove(self, keys: Iterable[PublicKey], told: list[str]) -> None:
        """Peers that nobody asks for any more."""
        self._carry_out([(PeerChange(key, remove=True), None) for key in keys], told)

    def _step(self, key: PublicKey) -> Step | None:
        before, after = self._roster.given.get(key), self._roster.merge.peer(key)
        if after is None and before is None:
            return None
        preshared = self._preshared(after) if after is not None and before != after else None
        change = difference(key, before, after, preshared)
        if change is None and after is not None:
            self._roster.given[key] = after  # called another name
            return None
        return None if change is None else (change, after)

    def _carry_out(self, steps: Sequence[Step], told: list[str]) -> None:
        """All at once, else by halves, down to the one that is refused."""
        if not steps:
            return
        try:
            self._give(Changes(peers=tuple(change for change, _ in steps)))
        except PywgError as error:
            is_away = isinstance(error, UapiError) and error.os_errno in _NOBODY_LISTENS
            if len(steps) == 1 or is_away:
                for change, entry in steps:
                    self._put_off(change.public_key, _why(error, entry), "", told)
                return
            half = len(steps) // 2
            self._carry_out(steps[:half], told)
            self._carry_out(steps[half:], told)
            return
        for change, entry in steps:
            self._note(change.public_key, entry, told)

    def _note(self, key: PublicKey, entry: Entry | None, told: list[str]) -> None:
        self.uncovered.discard(key)
        if entry is None:
            self._roster.given.pop(key, None)
            return
        self._roster.given[key] = entry
        outside = self._outside(entry)
        if outside:
            self.uncovered.add(key)
            told.append(
                f"{called(key, entry)}: no route here leads to {outside}, and none is added for "
                "peers of a store: widen Address, or add the route"
            )

    def _outside(self, entry: Entry) -> str:
        if self.cover is None:
            return ""
        return next((one for one in entry.networks if not self.cover.has(network(one))), "")

    def _put_off(self, key: PublicKey, why: str, was_told: str, told: list[str]) -> None:
        self.again[key] = why
        if why != was_told:
            told.append(f"{called(key, self._roster.merge.peer(key))} is not given: {why}")


def called(key: PublicKey, entry: Entry | None) -> str:
    """A peer in a line for people."""
    return f"peer {key} ({entry.name})" if entry is not None and entry.name else f"peer {key}"


def _why(error: PywgError, entry: Entry | None) -> str:
    if isinstance(error, UapiError) and error.os_errno == errno.ENOMEM:
        return "out of memory (fewer peers, or a higher --memory-limit)"
    return str(error)
