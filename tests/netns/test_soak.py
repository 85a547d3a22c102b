"""scripts/soak for a moment, and that it notices what it is for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tools import soak
from tools.lab.programs import REPOSITORY


@pytest.mark.pywgd_only
def test_a_quarter_of_a_minute_of_trouble_leaves_nothing_behind() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.soak", "0.25"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing grew" in done.stdout


@pytest.mark.parametrize("what", ["resident_kib", "descriptors", "handshake"])
def test_what_grows_is_noticed(what: str) -> None:
    def sample(number: int) -> soak.Sample:
        grows = {"resident_kib": 8000 + 200 * number, "descriptors": 19 + number // 4}
        value = {name: grows[name] if name == what else 0 for name in grows}
        return soak.Sample(
            float(number),
            (value["resident_kib"], 0),
            (value["descriptors"], 0),
            (0, 0),
            0,
            0 if what == "handshake" else number,
        )

    wrong = soak.judge([sample(number) for number in range(20)], 900)
    assert len(wrong) == 1
    expected = {"resident_kib": "KiB", "descriptors": "descriptors", "handshake": "not renewed"}
    assert expected[what] in wrong[0]
