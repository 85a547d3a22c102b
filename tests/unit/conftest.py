"""No unit test waits for, or leaves, the lock of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from pywg.host import lock


@pytest.fixture(autouse=True)
def _a_lock_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(lock, "PATH", Path(tmp_path_factory.getbasetemp()) / "lock")
