"""Which hooks are to be run for what happens to peers, when it happens faster than they run.

Pure: events in, jobs out, one at a time. Invariant: of each kind at most one job waits for a peer,
the latest; a peer is said to be up and to be down in turns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["up", "down", "endpoint"]


@dataclass(frozen=True, slots=True)
class Job:
    """Something to tell a hook: of a ``peer``, by its public key, and where it is now; empty if
    nobody knows."""

    kind: Kind
    peer: str
    endpoint: str = ""


class Agenda:
    """Events are objects of JSON, as native/event_json.py makes them."""

    def __init__(self, told: Iterable[str] = ()) -> None:
        self._told: set[str] = set(told)  # peers that a hook was told are up
        self._endpoints: dict[str, str] = {}
        self._states: dict[str, bool] = {}  # that wait, the oldest first
        self._moves: dict[str, None] = {}

    def note(self, event: Mapping[str, Any]) -> None:
        """Of other kinds than these, and without a peer, nothing is to be run."""
        peer = event.get("peer")
        if not isinstance(peer, str):
            return
        if isinstance(endpoint := event.get("endpoint"), str):
            self._endpoints[peer] = endpoint
        match event.get("event"):
            case "handshake_done":
                self._is(peer, up=True)
            case "peer_stale":
                self._is(peer, up=False)
            case "peer_gone":
                self._is(peer, up=False)
                self._moves.pop(peer, None)
                if peer not in self._states:
                    self._endpoints.pop(peer, None)
            case "endpoint_changed":
                self._moves.setdefault(peer, None)
            case _:
                pass

    def _is(self, peer: str, *, up: bool) -> None:
        if up == (peer in self._told):
            self._states.pop(peer, None)  # it went and came back before anybody was told
        else:
            self._states[peer] = up

    def take(self) -> Job | None:
        """The next one, which is then told; states before moves."""
        if self._states:
            peer = next(iter(self._states))
            is_up = self._states.pop(peer)
            (self._told.add if is_up else self._told.discard)(peer)
            return Job("up" if is_up else "down", peer, self._endpoints.get(peer, ""))
        if self._moves:
            peer = next(iter(self._moves))
            del self._moves[peer]
            return Job("endpoint", peer, self._endpoints.get(peer, ""))
        return None

    def __len__(self) -> int:
        return len(self._states) + len(self._moves)
