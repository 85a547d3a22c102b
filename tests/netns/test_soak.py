"""scripts/soak for a moment, and that it notices what it is for."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "soak"


@pytest.fixture(scope="module")
def soak() -> ModuleType:
    loader = SourceFileLoader("soak", str(SCRIPT))
    spec = importlib.util.spec_from_loader("soak", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["soak"] = module  # for its dataclass
    loader.exec_module(module)
    return module


@pytest.mark.pywgd_only
def test_a_quarter_of_a_minute_of_trouble_leaves_nothing_behind() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "0.25"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing grew" in done.stdout


@pytest.mark.parametrize("what", ["resident_kib", "descriptors", "handshake"])
def test_what_grows_is_noticed(soak: ModuleType, what: str) -> None:
    def sample(number: int) -> object:
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
