"""The Debian packages are built twice, read by lintian, and installed, upgraded and purged in a
copy on write of this machine's root, with a tunnel that runs meanwhile. `scripts/try-deb` does the
last in a Debian of its own."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.build import core
from tools.packages import deb, root, try_deb

NATIVE = core.ROOT / "pywg" / "_native"
HOLDS = [
    "holds: installs",
    "holds: a tunnel carries packets",
    "holds: upgrades beside a tunnel",
    "holds: is purged",
]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """With the core that is there already."""
    if not Path("/etc/debian_version").exists():
        pytest.skip("this is no Debian")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYWG_PREBUILT", str(NATIVE))
        yield deb.build(deb.this_machine(), tmp_path_factory.mktemp("deb"))


def test_they_are_of_the_version_of_the_core() -> None:
    changelog = (deb.RECIPE / "changelog").read_text()
    assert changelog.startswith(f"pywg ({core.version()}) ")


def test_lintian_has_nothing_to_say(packages: list[Path]) -> None:
    assert try_deb.lint(packages) == ""


def test_two_builds_are_the_same(packages: list[Path], tmp_path: Path) -> None:
    again = deb.build(deb.this_machine(), tmp_path)
    sums = [
        [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in built]
        for built in (packages, again)
    ]
    assert [name for name, _ in sums[0]] == [
        f"{name}_{core.version()}_{deb.this_machine()}.deb" for name in ("pywg", "pywgd")
    ]
    assert sums[0] == sums[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: installs packages")
def test_they_are_installed_upgraded_and_purged(packages: list[Path]) -> None:
    try:
        said = try_deb.attempt(packages, root.HERE, try_deb.OFFLINE)
    except subprocess.CalledProcessError as error:
        pytest.fail(error.stdout)
    assert said.splitlines() == HOLDS
