"""How a measurement ends before its time: with what was measured, and nothing left behind."""

from __future__ import annotations

import signal


def be_interruptible() -> None:
    """All of them raise KeyboardInterrupt, so that what was made is removed; a shell's background
    job would ignore SIGINT."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
