"""No unit test waits for, or leaves, the lock of this machine. ``run`` is the command line, in this
process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pywg import cli
from pywg.host import lock

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _a_lock_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(lock, "PATH", Path(tmp_path_factory.getbasetemp()) / "lock")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """run("up", ...) -> (exit code, stdout, stderr)"""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
