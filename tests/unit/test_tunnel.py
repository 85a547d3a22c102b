"""pywg.tunnel as a library: no command line, a reporter of the caller's own. No root, no core."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pywg.config import parse
from pywg.errors import PywgError
from pywg.plan.facts import Location
from pywg.plan.steps import (
    AddAddress,
    AddRule,
    DeleteInterface,
    DeleteRule,
    Lasting,
    Note,
    Phase,
    RemoveFirewall,
    SetDns,
    SetFirewall,
    Step,
    UnsetDns,
)
from pywg.tunnel import down, record, reload, save, up
from pywg.tunnel.apply import Applier
from pywg.tunnel.trace import Logged, tell


class Lines:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def doing(self, command: str) -> None:
        self.lines.append(f"doing {command}")

    def warn(self, text: str) -> None:
        self.lines.append(f"warn {text}")


def test_no_command_line_is_loaded_with_it() -> None:
    code = (
        "import sys, pywg.tunnel as tunnel\n"
        "assert all(map(callable, (tunnel.up, tunnel.down, tunnel.reload, tunnel.save)))\n"
        "sys.exit('click' in sys.modules or 'pywg.cli' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0


def test_the_reporter_of_the_caller_is_told() -> None:
    reporter = Lines()
    tell(reporter, DeleteInterface("wg0"))
    tell(reporter, Note("wg0", "no nft here"))
    assert reporter.lines == ["doing ip link delete dev wg0", "warn no nft here"]


def test_without_one_pythons_log_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tell(Logged(), DeleteInterface("wg0"))
    tell(Logged(), Note("wg0", "no nft here"))
    assert [(entry.levelname, entry.message) for entry in caplog.records] == [
        ("INFO", "ip link delete dev wg0"),
        ("WARNING", "no nft here"),
    ]


@pytest.mark.parametrize("name", ["../wg0", "", "a b", "sixteen_letters_", ".."])
def test_a_name_that_no_interface_can_have_is_no_path(name: str) -> None:
    nothing = parse("[Interface]")
    acts: tuple[Callable[[], None], ...] = (
        lambda: up(nothing, name),
        lambda: down(name),
        lambda: reload(name, nothing),
        lambda: save(name, Path("wg0.conf")),
    )
    for act in acts:
        with pytest.raises(PywgError, match="cannot name an interface"):
            act()


def test_reload_refuses_a_tunnel_that_up_did_not_make(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(record, "DIRECTORY", tmp_path)
    with pytest.raises(PywgError, match="wg0 is not up by"):
        reload("wg0", parse("[Interface]"))


# ---- the order of undoing


UNDOING: list[Step] = [
    RemoveFirewall("wg0", "nft", 4),
    UnsetDns("wg0", "file", "/etc/resolv.conf"),
    DeleteInterface("wg0"),
    DeleteRule("wg0", 4, 1),
    DeleteRule("wg0", 4, 0, 51820),
]


def test_down_undoes_in_the_order_of_wg_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    applier = Applier(Location(), "", Lines())
    monkeypatch.setattr(applier, "apply", lambda step: done.append(type(step).__name__))
    assert applier.undo_all(UNDOING) == []
    assert done == ["DeleteRule", "DeleteRule", "DeleteInterface", "UnsetDns", "RemoveFirewall"]


def test_all_is_undone_whatever_some_steps_say(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Step] = []

    def apply(step: Step) -> None:
        done.append(step)
        if step.phase is Phase.INTERFACE:
            raise PywgError("no")

    applier = Applier(Location(), "", Lines())
    monkeypatch.setattr(applier, "apply", apply)
    assert [str(error) for error in applier.undo_all(UNDOING)] == ["no"]
    assert len(done) == len(UNDOING)


@pytest.mark.parametrize(
    "step",
    [
        AddRule("wg0", 4, 1),
        SetDns("wg0", "file", "/etc/resolv.conf", ("192.0.2.1",)),
        SetFirewall("wg0", "nft", 4, 1),
    ],
)
def test_what_outlives_the_interface_is_undone_in_the_phase_it_names(step: Step) -> None:
    undo = step.undo()
    assert undo is not None
    assert step.outlives()
    assert isinstance(step, Lasting)
    assert undo.phase is step.phase


def test_what_goes_with_the_interface_needs_no_undoing() -> None:
    (address,) = parse("[Interface]\nAddress=10.0.0.1/24").interface.addresses
    assert record.undoing([AddAddress("wg0", address)]) == []
