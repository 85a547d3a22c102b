"""What most tests of `pywg up` begin with."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.lab.host import Host, hosted
from tools.lab.programs import REPOSITORY, Program
from tools.lab.terminal import Terminal


@pytest.fixture
def host(subject: Program, tmp_path: Path) -> Iterator[Host]:
    with hosted(tmp_path) as made:
        yield made


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A shell of root's."""
    if shutil.which("tmux") is None:
        pytest.skip("needs tmux")
    made = Terminal(
        tmp_path / "tmux", lambda words: subprocess.Popen(words, cwd=REPOSITORY), width=132
    )
    try:
        yield made
    finally:
        made.close()
