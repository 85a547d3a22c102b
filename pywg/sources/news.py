"""What a store tells the follower, as values; and what every store promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

#: A text that begins so is none: what follows says why it could not be had.
NO_TEXT = "\0"


@dataclass(frozen=True, slots=True)
class Whole:
    """All texts there are now, by their names; ``position`` says where in the store's time."""

    texts: Mapping[str, str]
    position: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """Texts that are new or others, None for those that are gone."""

    texts: Mapping[str, str | None]
    position: str = ""


@dataclass(frozen=True, slots=True)
class Same:
    """The store answered, and there is nothing new."""

    position: str = ""


@dataclass(frozen=True, slots=True)
class Away:
    """The store does not answer, or what it says cannot be used: what is known stays."""

    reason: str


News = Whole | Part | Same | Away


class Hear(Protocol):
    """Waits where too much is waiting already."""

    def __call__(self, news: News, /) -> None: ...


class Store(Protocol):
    """Tells first a Whole and then what changes, for ever; of an outage, Away, each time it has
    tried. Raises nothing."""

    def run(self, hear: Hear) -> None: ...
