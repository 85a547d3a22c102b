"""What a command says while it works: one line that lives, on a terminal; words, elsewhere."""

from __future__ import annotations

import shutil
import time
from typing import TextIO

from pywg.errors import hide_keys

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PLAIN_SPINNER = "|/-\\"
_ERASE = "\r\033[K"


class Words:
    """A line for each thing that is known."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def note(self, line: str) -> None:
        print(hide_keys(line), file=self._stream, flush=True)

    def begin(self, what: str, seconds: float) -> None:
        pass

    def wait(self) -> None:
        pass

    def close(self) -> None:
        pass


class LiveLine(Words):
    """Notes stay, as they do in a pipe; below them a line says what is being done, and for how
    long. ``close`` takes that line away."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        is_unicode = (stream.encoding or "").lower().replace("-", "") == "utf8"
        self._signs = _SPINNER if is_unicode else _PLAIN_SPINNER
        self._doing, self._seconds, self._began = "", 0.0, time.monotonic()
        self._drawn_at = 0.0

    def note(self, line: str) -> None:
        self.close()
        super().note(line)

    def begin(self, what: str, seconds: float) -> None:
        self._doing, self._seconds, self._began = what, seconds, time.monotonic()
        self._draw()

    def wait(self) -> None:
        if time.monotonic() - self._drawn_at > 0.1:
            self._draw()

    def close(self) -> None:
        self._stream.write(_ERASE)
        self._stream.flush()

    def _draw(self) -> None:
        self._drawn_at = time.monotonic()
        elapsed = self._drawn_at - self._began
        sign = self._signs[int(elapsed * 10) % len(self._signs)]
        of = f" of {self._seconds:g}" if self._seconds else ""
        line = f"{sign} {self._doing}: {elapsed:.0f}{of} s"
        self._stream.write(_ERASE + line[: shutil.get_terminal_size().columns - 1])
        self._stream.flush()


def progress(stream: TextIO) -> Words:
    """What fits the stream."""
    return LiveLine(stream) if stream.isatty() else Words(stream)
