"""A terminal of tmux, with a shell in it: what is typed, and what the screen shows."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tools.lab.namespaces import run
from tools.lab.waiting import wait_until

Start = Callable[[Sequence[str]], subprocess.Popen[Any]]


class Terminal:
    """Its shell has the prompt `outer$`. ``start`` runs tmux: as whom, and where."""

    def __init__(self, socket: Path, start: Start, width: int = 200) -> None:
        self.socket = socket
        shell = "env PS1='outer$ ' SHELL=/bin/bash bash --norc --noprofile"
        words = ["new-session", "-d", "-x", str(width), "-y", "24", shell]
        started = start(["tmux", "-f", "/dev/null", "-S", str(self.socket), *words])
        assert started.wait(30) == 0
        self.await_text(r"outer\$$")

    def tmux(self, *words: str) -> str:
        return run("tmux", "-S", str(self.socket), *words)

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-l", text)
        self.tmux("send-keys", "Enter")

    def press(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p").rstrip()

    def await_text(self, pattern: str) -> None:
        """At the end of a line; the last line that is not empty matches too."""
        try:
            wait_until(
                lambda: re.search(pattern, self.screen(), re.MULTILINE) is not None,
                f"the terminal shows {pattern}",
                seconds=30,
            )
        except AssertionError:
            print(self.screen())
            raise

    def close(self) -> None:
        with contextlib.suppress(AssertionError):
            self.tmux("kill-server")
