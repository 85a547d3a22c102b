"""What the core logs, line by line, to a function: where there is no descriptor to write to, such
as in the background, whose lines go to the system's log.

Invariant: the core waits for nobody. It loses lines, and counts them, when the pipe is full.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

#: What is still in the pipe when the core has ended has so many seconds.
LAST_LINES_S = 1.0


class Relay:
    """``fd`` is what the core writes to. ``start`` when the thread may be there, and ``close`` when
    the core has ended."""

    def __init__(self, name: str, write: Callable[[str], None]) -> None:
        self._prefix = f"pywg: {name}: "  # the system's log says that in its own way
        self._write = write
        self._reading, self.fd = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="pywg log", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        os.close(self.fd)
        if self._thread.ident is None:
            os.close(self._reading)
        else:
            self._thread.join(LAST_LINES_S)

    def _run(self) -> None:
        with open(self._reading, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                self._write(line.rstrip("\n").removeprefix(self._prefix))
