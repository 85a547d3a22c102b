"""pywgd for other machines, run by qemu-user: a handshake and a transfer against that of this one.

scripts/try-targets does the same for every target, with wheels and Zig tests.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("ziglang")

from tools.build import core
from tools.lab.lab import Lab
from tools.targets import machine, static, trial, zigtests


@pytest.mark.pywgd_only
@pytest.mark.parametrize("arch", list(core.TARGETS))
def test_every_target_shakes_hands_and_carries_data(lab: Lab, arch: str, tmp_path: Path) -> None:
    path = static.build([arch], tmp_path)[0]
    try:
        tunnel = trial.connect(lab, arch, path)
    except machine.Missing as missing:
        pytest.skip(str(missing))
    trial.transfer(tunnel)


@pytest.mark.pywgd_only
def test_the_zig_tests_of_what_is_sent_pass_in_the_other_byte_order(tmp_path: Path) -> None:
    try:
        tally = zigtests.run("s390x", ["wire"], tmp_path)
    except machine.Missing as missing:
        pytest.skip(str(missing))
    assert not tally.failed
    assert tally.ok > 30
