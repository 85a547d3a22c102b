"""What a tunnel tells while it is brought up, changed or taken down: the caller says to whom.

Knows no terminal. Invariant: no line holds a key.
"""

from __future__ import annotations

import logging
from typing import Protocol, runtime_checkable

from pywg.errors import hide_keys
from pywg.plan.explain import reason
from pywg.plan.steps import Note, Step

_log = logging.getLogger("pywg.tunnel")


class Reporter(Protocol):
    """Each call is one line of text, without its newline."""

    def doing(self, command: str) -> None:
        """A step as it begins, in the words of wg-quick: ``ip link set mtu 1420 up dev wg0``."""

    def warn(self, text: str) -> None:
        """Something that is not done here, with what it costs."""


@runtime_checkable
class Explaining(Reporter, Protocol):
    """A reporter that also wants to know why."""

    def because(self, reason: str) -> None:
        """After each step: one sentence."""


class Logged:
    """The default: Python's own log, steps at the level INFO."""

    def doing(self, command: str) -> None:
        _log.info("%s", hide_keys(command))

    def warn(self, text: str) -> None:
        _log.warning("%s", hide_keys(text))


def tell(reporter: Reporter, step: Step) -> None:
    """People paste this trace into reports: it reads as wg-quick's."""
    if isinstance(step, Note):
        reporter.warn(hide_keys(str(step)))
    else:
        reporter.doing(hide_keys(str(step)))  # a hook may have a key in its line
        if isinstance(reporter, Explaining):
            reporter.because(reason(step))
