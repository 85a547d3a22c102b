"""Follows a store: what it says comes to the interface, and is kept for a time without it.

A thread asks the store, this one decides and applies. The process of its own it is in holds no
capability, and nothing that happens to it touches a session. Clock, store, interface and files are
arguments. Invariant: no peer is taken away because the store, this host's disk or we ourselves
fail.
"""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from pywg.errors import hide_keys
from pywg.keys import PresharedKey
from pywg.sources.applier import Applier
from pywg.sources.cache import Cache
from pywg.sources.cover import Cover
from pywg.sources.merge import Static
from pywg.sources.news import Away, News, Part, Same, Store, Whole
from pywg.sources.roster import Entries, Roster
from pywg.sources.state import LISTED, State
from pywg.sources.values import Entry
from pywg.wireguard.changes import Changes

Log = Callable[[str], None]
#: News that wait; then the store waits.
WAITING = 1000
#: How often peers that could not be given are tried again, and the state is written at most.
AGAIN_S, STATE_S = 30.0, 1.0
#: Lines told at once; the others are counted.
TOLD = 10


@dataclass(frozen=True, slots=True)
class Reread:
    """The file of the interface may be another one."""


@dataclass(frozen=True, slots=True)
class Around:
    """What the follower is given. ``own`` reads the file of the interface: what is its own, and
    where its routes lead; it may raise PywgError or OSError. ``give`` and ``preshared`` may raise
    PywgError. ``empties``: whether a list that is empty all of a sudden is meant."""

    give: Callable[[Changes], None]
    preshared: Callable[[Entry], PresharedKey | None]
    own: Callable[[], tuple[Static, Cover | None]]
    log: Log
    state: Path
    empties: bool = True
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


class Follower:
    """``run`` does not return; ``reread`` may be called by other threads."""

    def __init__(self, source: str, store: Store, cache: Cache, around: Around) -> None:
        self._store = store
        self._cache: Cache | None = cache
        self._around = around
        static, cover = around.own()
        self._roster = Roster(static)
        self._applier = Applier(self._roster, around.give, around.preshared, cover)
        self._state = State(source, pid=os.getpid())
        self._news: queue.Queue[News | Reread] = queue.Queue(WAITING)
        self._has_heard = False
        self._held = ""
        self._again_at: float | None = None  # by the monotonic clock, as is the next
        self._state_at = 0.0
        self._is_stale = True  # what is written down of the state

    def listen(self) -> None:
        """A thread for the store, which may begin before there is an interface."""
        threading.Thread(target=self._hear, name="pywg store", daemon=True).start()

    def _hear(self) -> None:
        """Whatever a store says, it is asked again."""
        while True:
            try:
                self._store.run(self._news.put)
                return
            except Exception as error:
                self._news.put(Away(f"its answer makes no sense ({type(error).__name__})"))
                time.sleep(AGAIN_S)

    def go_on(self) -> None:
        """The interface has what an earlier follower gave it, which the last good list tells: only
        what differs from it by now is said, and who has left the store since then leaves."""
        texts = {} if self._cache is None else self._cache.load()
        self._has_heard = bool(texts)
        for key in self._roster.restore(texts):
            entry = self._roster.merge.peer(key)
            if entry is None:
                continue
            # Whether it could read a preshared key, it has told nobody.
            known = replace(entry, preshared_file="", preshared_encrypted="")
            self._roster.given[key] = known
            if known != entry:
                self._applier.again[key] = ""
                self._again_at = 0.0

    def reread(self) -> None:
        self._news.put(Reread())

    def run(self) -> None:
        while True:
            try:
                self.turn()
            except Exception as error:  # whatever it is, peers and tunnel stay
                self._around.log(f"following peers failed, and begins anew: {error!r}")
                self._again_at = 0.0
                self._applier.again |= dict.fromkeys(self._roster.forget_given(), "")
                time.sleep(STATE_S)

    def turn(self) -> None:
        """Waits for news, or for what is due, and does all that waits."""
        found = self._wait()
        told: list[str] = []
        done = [self._take(one, told) for one in found]
        done.append(self._try_again(told))
        if any(done):
            self._state.changed_s = self._around.clock()
        self._tell(told)
        self._is_stale |= bool(found)
        self._write_state()

    def _try_again(self, told: list[str]) -> bool:
        now = self._around.monotonic()
        is_due = self._again_at is not None and self._again_at <= now
        done = is_due and self._applier.apply(list(self._applier.again), told)
        if not self._applier.again:
            self._again_at = None
        elif is_due or self._again_at is None:
            self._again_at = now + AGAIN_S
        return done

    def _wait(self) -> list[News | Reread]:
        """What came, at least one unless something is due before."""
        dues = (self._again_at, self._state_at if self._is_stale else None)
        due = [at for at in dues if at is not None]
        timeout_s = max(0.0, min(due) - self._around.monotonic()) if due else None
        found: list[News | Reread] = []
        with contextlib.suppress(queue.Empty):
            found.append(self._news.get(timeout=timeout_s))
            while len(found) < WAITING:
                found.append(self._news.get_nowait())
        return _joined(found)

    def _take(self, one: News | Reread, told: list[str]) -> bool:
        match one:
            case Away(reason=reason):
                return self._without_store(reason, told)
            case Reread():
                return self._with_another_file(told)
            case Same(position=position):
                self._heard(position, told)
                return False
            case Whole(texts=texts, position=position):
                self._heard(position, told)
                return self._is_meant(texts, told) and self._with(one, told)
            case Part(position=position):
                self._heard(position, told)
                return self._with(one, told)

    # ---- one thing that happened each

    def _heard(self, position: str, told: list[str]) -> None:
        if self._state.error:
            told.append(f"{self._state.source} answers again")
        self._has_heard = True
        self._state.error = self._held
        self._state.heard_s = self._around.clock()
        self._state.position = position or self._state.position

    def _without_store(self, reason: str, told: list[str]) -> bool:
        was = self._state.error
        self._state.error = hide_keys(reason)
        if was:
            return False
        told.append(f"{self._state.source} is not reached, what is known stays: {reason}")
        if self._has_heard or self._cache is None:
            return False
        self._has_heard = True
        texts = self._cache.load()
        if not texts:
            return False
        self._state.is_cached = True
        told.append(f"{len(texts)} entries of the last good list of an earlier run are taken")
        return self._applier.apply(self._roster.restore(texts), told)

    def _is_meant(self, texts: object, told: list[str]) -> bool:
        """A store that has lost everything has nothing to say."""
        if texts or self._around.empties or not self._roster.texts:
            self._held = self._state.error = ""
            return True
        self._held = self._state.error = (
            f"it is empty all of a sudden, so {len(self._roster.texts)} entries stay as they were; "
            "if that is meant: pywg down and up"
        )
        told.append(f"{self._state.source}: {self._held}")
        return False

    def _with(self, news: Whole | Part, told: list[str]) -> bool:
        keys, lines, changed = self._roster.take(news)
        told += lines
        has_changed = self._applier.apply(keys, told)
        if isinstance(news, Whole):
            self._state.is_cached = False
            gc.freeze()  # or each search for garbage would look at all entries again
        self._keep(changed, told, is_whole=isinstance(news, Whole))
        return has_changed

    def _with_another_file(self, told: list[str]) -> bool:
        static, cover = self._around.own()
        self._applier.cover = cover
        keys, orphans = self._roster.exchange(static)
        self._applier.remove(orphans, told)
        return self._applier.apply({*keys, *self._applier.again}, told)

    def _keep(self, changed: dict[str, Entries], told: list[str], *, is_whole: bool) -> None:
        if self._cache is None or not (changed or is_whole):
            return
        lines = [(name, dict(entries)) for name, entries in changed.items()]
        try:
            self._cache.append(lines, len(self._roster.texts), self._roster.mappings)
        except (OSError, ValueError) as error:
            why = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
            told.append(f"the last good list cannot be kept for the next start: {why}")
            self._cache.forget()  # or peers that leave from now on would come back
            self._cache = None

    # ---- what is told

    def _tell(self, told: list[str]) -> None:
        for line in told[:TOLD]:
            self._around.log(line)
        if len(told) > TOLD:
            self._around.log(f"and {len(told) - TOLD} more lines of this kind (see: pywg show)")

    def _write_state(self) -> None:
        now = self._around.monotonic()
        if not self._is_stale or now < self._state_at:
            return
        self._is_stale = False
        self._state_at = now + STATE_S
        count, problems = self._roster.skipped()
        put_off = [f"peer {key}: {why}" for key, why in self._applier.again.items()][:LISTED]
        self._state.peers = len(self._roster.given)
        self._state.skipped = count + len(self._applier.again)
        self._state.problems = (*islice(problems, LISTED), *put_off)
        self._state.disputes = self._roster.merge.disputes()
        self._state.uncovered = len(self._applier.uncovered)
        with contextlib.suppress(OSError):
            self._state.write(self._around.state)


def _joined(found: Iterable[News | Reread]) -> list[News | Reread]:
    """Parts that follow each other are one: of a text that changed twice the last counts."""
    joined: list[News | Reread] = []
    for one in found:
        last = joined[-1] if joined else None
        if isinstance(one, Part) and isinstance(last, Part):
            joined[-1] = Part({**last.texts, **one.texts}, one.position)
        elif isinstance(one, Same) and isinstance(last, Same):
            joined[-1] = one
        else:
            joined.append(one)
    return joined
