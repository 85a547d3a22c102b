"""As root scripts/peers has installed what these tests need; others are told what is missing."""

from __future__ import annotations

import os
import shutil

import pytest

NEEDED = ("busybox", "dh", "dh_python3", "dpkg-buildpackage", "lintian", "make", "shellcheck")


@pytest.fixture(autouse=True, scope="session")
def _programs() -> None:
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing and os.geteuid() != 0:
        pytest.skip(f"there is no {', '.join(missing)} (scripts/peers installs them, as root)")
    assert not missing, "run scripts/peers"
