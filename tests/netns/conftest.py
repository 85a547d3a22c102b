"""What most tests of `pywg up` begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.lab.host import Host, hosted
from tools.lab.programs import Program


@pytest.fixture
def host(subject: Program, tmp_path: Path) -> Iterator[Host]:
    with hosted(tmp_path) as made:
        yield made
