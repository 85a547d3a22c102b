"""Who is told what a demo does while it works."""

from __future__ import annotations

from typing import Protocol

from pywg.demo.process import Channel


class Reporter(Protocol):
    """Called in one thread, in the order of events."""

    def note(self, line: str) -> None:
        """Something is known now."""

    def begin(self, what: str, seconds: float) -> None:
        """Something begins that takes about as long; 0 for a moment."""

    def wait(self) -> None:
        """Called several times a second while it lasts."""


class Sender:
    """A Reporter for a child process: its parent reads what comes by the channel. Waiting is the
    parent's."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def note(self, line: str) -> None:
        self._channel.send({"note": line})

    def begin(self, what: str, seconds: float) -> None:
        self._channel.send({"begin": what, "seconds": seconds})

    def wait(self) -> None:
        pass
