"""What a command tells on stderr while it works, the trace that people paste into reports; and a
plan on stdout, which is a product and no trace."""

from __future__ import annotations

import contextlib
import sys

from pywg.errors import hide_keys


class Terminal:
    """A Reporter: steps as wg-quick echoes them, ``[#] command``; warnings as ``[!] text``."""

    def doing(self, command: str) -> None:
        _print(f"[#] {command}")

    def warn(self, text: str) -> None:
        _print(f"[!] {text}")


class Explained(Terminal):
    """With the reason below each step."""

    def because(self, reason: str) -> None:
        _print(f"    {reason}")


class Listing(Terminal):
    """Steps on stdout, as plain commands."""

    def doing(self, command: str) -> None:
        print(command, flush=True)


class ExplainedListing(Listing):
    """With the reason behind each step, as a comment of the shell."""

    def because(self, reason: str) -> None:
        print(f"    # {reason}", flush=True)


def _print(line: str) -> None:
    with contextlib.suppress(OSError):  # nobody may be reading it any more (`| head`)
        print(hide_keys(line), file=sys.stderr, flush=True)
