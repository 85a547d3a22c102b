"""On a booted Debian: the cases of scripts/vm, from one run of the virtual machine."""

from __future__ import annotations

import pytest

from tools.lab.programs import Missing
from tools.vm import command
from tools.vm.guest.cases import CASES
from tools.vm.results import Result

Run = tuple[dict[str, Result], str]


@pytest.fixture(scope="module")
def booted() -> Run:
    """What the guest said: of each case, and all of it."""
    log: list[str] = []
    try:
        found = command.run_cases(CASES, log.append, log.append)
    except Missing as missing:
        pytest.skip(str(missing))
    return {result.case: result for result in found}, "\n".join(log)


@pytest.mark.parametrize("name", CASES)
def test_a_booted_debian_shows(name: str, booted: Run) -> None:
    found, log = booted
    result = found[name]
    if result.word == "skip":
        pytest.skip(result.text)
    assert result.word == "ok", f"{result.text}\n{log}"
