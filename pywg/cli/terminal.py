"""What a command tells on stderr while it works: the trace that people paste into reports."""

from __future__ import annotations

import contextlib
import sys


class Terminal:
    """A Reporter: steps as wg-quick echoes them, ``[#] command``; warnings as ``[!] text``."""

    def doing(self, command: str) -> None:
        _print(f"[#] {command}")

    def warn(self, text: str) -> None:
        _print(f"[!] {text}")


def _print(line: str) -> None:
    with contextlib.suppress(OSError):  # nobody may be reading it any more (`| head`)
        print(line, file=sys.stderr, flush=True)
