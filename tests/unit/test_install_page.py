"""docs/install.md names what an installation leaves on a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from pywg import cli
from pywg.cli import install_units

PAGE = (Path(__file__).parents[2] / "docs" / "install.md").read_text()


def test_every_file_that_install_units_writes_is_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["install-units", "--prefix", str(tmp_path)]) == 0
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 3
    for path in written:
        assert str(install_units.PREFIX / path.relative_to(tmp_path)) in PAGE
