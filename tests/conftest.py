r"""The tests that need root work in this place, made anew for each of them and removed after it:

      namespace a                                            namespace b
    +---------------------------+                          +---------------------------+
    |  ping, TCP, UDP           |                          |           ping, TCP, UDP  |
    |        |                  |                          |                  |        |
    |   TUN of the daemon       |      (the tunnel)        |       TUN of the daemon   |
    |   10.99.0.1/24  - - - - - - - - - - - - - - - - - - - - - - - - - 10.99.0.2/24    |
    |   fd99::1/64              |                          |              fd99::2/64   |
    |        |                  |                          |                  |        |
    |   daemon A, UDP 51820     |                          |     daemon B, UDP 51820   |
    |        |                  |                          |                  |        |
    |   veth 192.0.2.1/24       |         a cable          |       veth 192.0.2.2/24   |
    |        2001:db8::1/64 ==================================== 2001:db8::2/64        |
    +---------------------------+                          +---------------------------+

test_integrity.py puts a third namespace with a relay between the two, drawn there. Each worker of
pytest has /run/wireguard and its like for itself (tools/lab/seclusion.py), so that workers and runs
side by side do not meet; daemons are told apart by interface names that hold our pid.

The daemon under test is $PYWGD, or the one built in this repository. With PYWGD=wireguard-go the
tests test themselves; those that ask for what only pywg promises are then skipped.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tools.lab import programs
from tools.lab.lab import Lab
from tools.lab.namespaces import sweep
from tools.lab.programs import Missing, Program
from tools.lab.seclusion import seclude

HERE = Path(__file__).parent
NEED_ROOT = (HERE / "netns", HERE / "interop", HERE / "vm")
_labs: list[Lab] = []


def pytest_configure(config: pytest.Config) -> None:
    # A shell lets what it starts in the background ignore Ctrl-C, and so would what tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "netns: end to end in network namespaces; needs root")
    config.addinivalue_line("markers", "interop: with a peer that is not pywg; needs root")
    config.addinivalue_line("markers", "vm: on a booted Debian in qemu; needs root")
    config.addinivalue_line("markers", "matrix: every combination of offloads; about two minutes")
    config.addinivalue_line(
        "markers", "slow: waits for a timer of the protocol, ten seconds or more"
    )
    config.addinivalue_line("markers", "pywgd_only: asks for what only pywg promises")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    standing_in = _is_standing_in()
    for item in items:
        place = next((place for place in NEED_ROOT if place in item.path.parents), None)
        if place is None:
            continue
        item.add_marker(getattr(pytest.mark, place.name))
        if os.geteuid() != 0:
            item.add_marker(
                pytest.mark.skip(reason="needs root: makes network namespaces and TUN interfaces")
            )
        elif standing_in and item.get_closest_marker("pywgd_only"):
            item.add_marker(
                pytest.mark.skip(
                    reason=f"{standing_in} stands in for pywgd and does not promise this"
                )
            )


def _is_standing_in() -> str | None:
    try:
        subject = programs.subject()
    except Missing:
        return None
    return None if subject.is_pywgd else subject.label


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the daemons said."""
    report = yield
    if report.failed and report.when == "call":
        for lab in _labs:
            for daemon in lab.daemons[-4:]:
                report.sections.append((f"log of {daemon}", daemon.log()[-4000:]))
                with contextlib.suppress(OSError):  # it may be the failure that nobody answers
                    counted = {name: n for name, n in daemon.report().items() if n != "0"}
                    report.sections.append((f"report of {daemon}", f"{counted}\n"))
    return report


@pytest.fixture(scope="session", autouse=True)
def _seclusion() -> None:
    if os.geteuid() == 0:
        sweep()
        seclude()


@pytest.fixture(scope="session")
def subject() -> Program:
    """The daemon under test."""
    try:
        return programs.subject()
    except Missing as missing:
        pytest.fail(str(missing))


@pytest.fixture
def lab(subject: Program, tmp_path: Path) -> Iterator[Lab]:
    yield from _open_lab(tmp_path)


@pytest.fixture(scope="module")
def shared_lab(subject: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One place for all tests of a file: for tables of many short cases."""
    yield from _open_lab(tmp_path_factory.mktemp("lab"))


def _open_lab(directory: Path) -> Iterator[Lab]:
    opened = Lab(directory)
    _labs.append(opened)
    try:
        yield opened
    finally:
        _labs.remove(opened)
        opened.close()
