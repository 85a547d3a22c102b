"""Who has what several claim: of those who claim a thing, the one whose name sorts first.

Pure, and independent of the order in which claims come and go. Small where nobody disputes.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Hashable
from typing import Generic, TypeVar

Thing = TypeVar("Thing", bound=Hashable)


class Claims(Generic[Thing]):
    """Things, and the names of those who claim them."""

    def __init__(self) -> None:
        self._holders: dict[Thing, str] = {}
        self._disputed: dict[Thing, list[str]] = {}  # all who claim it, in order; two or more

    def add(self, thing: Thing, name: str) -> None:
        """Which ``name`` does not claim yet."""
        holder = self._holders.get(thing)
        if holder is None:
            self._holders[thing] = name
            return
        claimants = self._disputed.setdefault(thing, [holder])
        insort(claimants, name)
        self._holders[thing] = claimants[0]

    def remove(self, thing: Thing, name: str) -> None:
        """Which ``name`` claims."""
        claimants = self._disputed.get(thing)
        if claimants is None:
            del self._holders[thing]
            return
        claimants.remove(name)
        self._holders[thing] = claimants[0]
        if len(claimants) == 1:
            del self._disputed[thing]

    def holder(self, thing: Thing) -> str | None:
        """None where nobody claims it."""
        return self._holders.get(thing)

    def disputes(self) -> int:
        """How many things more than one claims."""
        return len(self._disputed)
