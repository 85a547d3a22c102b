"""Steps carried out, all or nothing; and one case for each kind of step. No kernel."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from pywg.errors import HostError, NetworkError
from pywg.host import firewall
from pywg.plan.build import plan
from pywg.plan.facts import Facts, Location
from pywg.plan.steps import (
    Configure,
    DeleteAddress,
    LinkUp,
    RemoveFirewall,
    Replace,
    SetFirewall,
    Step,
    TakeBack,
)
from pywg.tunnel.apply import Applier
from tests.unit.test_plan import config

STEPS: list[Step] = [
    step
    for step in plan("wg0", config("Address=10.0.0.1/24", "10.1.0.0/16"), Facts())
    if not isinstance(step, Configure)
]


class Trace:
    """A reporter that hands each line to a function."""

    def __init__(self, doing: Callable[[str], object]) -> None:
        self._tell = doing

    def doing(self, command: str) -> None:
        self._tell(command)

    def warn(self, text: str) -> None:
        self._tell(text)


def execute(
    steps: list[Step],
    perform: Callable[[Step], None],
    doing: Callable[[str], object] = lambda line: None,
) -> None:
    applier = Applier(Location(), "", Trace(doing))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(applier, "apply", perform)
        with applier.all_or_nothing():
            applier.apply_all(steps)


class Kernel:
    """Performs steps by writing them down; fails at one."""

    def __init__(self, fail_at: Step | None = None, error: BaseException | None = None) -> None:
        self.done: list[str] = []
        self.fail_at = fail_at
        self.error = error or NetworkError("no")

    def perform(self, step: Step) -> None:
        if step == self.fail_at:
            raise self.error
        self.done.append(str(step))


def test_execute_echoes_before_it_performs() -> None:
    kernel, trace = Kernel(), []

    def echo(line: str) -> None:
        trace.append(line)
        assert line not in kernel.done

    execute(STEPS, kernel.perform, echo)
    assert kernel.done == trace == [str(step) for step in STEPS]


@pytest.mark.parametrize("index", range(len(STEPS)))
def test_a_failing_step_undoes_the_earlier_ones_backwards(index: int) -> None:
    kernel = Kernel(fail_at=STEPS[index])
    with pytest.raises(NetworkError):
        execute(STEPS, kernel.perform)
    undone = [str(step.undo()) for step in reversed(STEPS[:index]) if step.undo()]
    assert kernel.done == [str(step) for step in STEPS[:index]] + undone


def test_an_interrupted_step_is_undone_too() -> None:
    kernel = Kernel(fail_at=STEPS[1], error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        execute(STEPS, kernel.perform)
    assert kernel.done[1:] == [str(STEPS[1].undo()), str(STEPS[0].undo())]


def test_an_undo_that_fails_hides_nothing() -> None:
    done = []

    def perform(step: Step) -> None:
        if step == STEPS[2]:
            raise NetworkError("the first")
        if step == STEPS[1].undo():
            raise NetworkError("the second")
        done.append(str(step))

    with pytest.raises(NetworkError, match="the first"):
        execute(STEPS, perform)
    assert done[-1] == "ip link delete dev wg0"


def test_a_trace_nobody_reads_does_not_keep_steps_from_being_undone() -> None:
    done = []

    def perform(step: Step) -> None:
        done.append(str(step))
        if isinstance(step, LinkUp):
            raise NetworkError("no")

    def echo(line: str) -> None:
        if "delete" in line:
            raise BrokenPipeError

    wanted = plan("wg0", config("Address=10.0.0.1/24"), Facts())
    with pytest.raises(NetworkError):
        execute(wanted, perform, echo)
    assert done[-2:] == ["ip -4 address delete 10.0.0.1/24 dev wg0", "ip link delete dev wg0"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_does_not_keep_steps_from_being_undone(number: int) -> None:
    done = []

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def perform(step: Step) -> None:
        done.append(str(step))
        if isinstance(step, (LinkUp, DeleteAddress)):
            signal.raise_signal(number)

    before = signal.signal(number, interrupt)
    try:
        wanted = plan("wg0", config("Address=10.0.0.1/24"), Facts())
        with pytest.raises(KeyboardInterrupt):
            execute(wanted, perform)
        assert signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, before)
    assert done[-1] == "ip link delete dev wg0"


# ---- what a host has broken

NFT = SetFirewall("wg0", "nft", 4, 1)
IPTABLES = SetFirewall("wg0", "iptables", 4, 1)
LINK = LinkUp("wg0", 1420)


class Broken:
    """An Applier on a host where some steps cannot be done. Beside nft, it has iptables."""

    def __init__(self, patch: pytest.MonkeyPatch, *refused: Step) -> None:
        self.done: list[Step] = []
        self.said: list[str] = []
        self.noted: list[Step] = []
        self.refused = refused
        self.applier = Applier(Location(), "", Trace(self.said.append))
        self.applier.noting = self.noted.append
        patch.setattr(self.applier, "apply", self._apply)
        patch.setattr(firewall, "tools", lambda: ["nft", "iptables"])

    def _apply(self, step: Step) -> None:
        if step in self.refused:
            raise HostError(f"cannot: {step}")
        self.done.append(step)


def test_the_next_tool_is_noted_before_it_is_used_and_known_as_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Broken(monkeypatch, NFT)
    host.applier.apply_all([LINK, NFT])
    assert host.done == [LINK, IPTABLES]
    assert host.noted == [IPTABLES]
    assert host.applier.as_done([LINK, NFT]) == (LINK, IPTABLES)
    assert host.said[-1] == "cannot: nft -f -: this is done instead: iptables-restore -n"


def test_where_no_tool_works_the_step_is_left_out_and_the_cost_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Broken(monkeypatch, NFT, IPTABLES)
    host.applier.apply_all([NFT, LINK])
    assert host.done == [LINK]
    assert host.applier.as_done([NFT, LINK]) == (LINK,)
    assert "no IPv4 guard for wg0: cannot: nft -f -; cannot: iptables" in host.said[-2]


def test_what_came_instead_is_rolled_back(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Broken(monkeypatch, NFT)
    with pytest.raises(NetworkError), host.applier.all_or_nothing():
        host.applier.apply_all([NFT])
        raise NetworkError("later")
    assert host.done == [IPTABLES, RemoveFirewall("wg0", "iptables", 4)]


def test_a_reload_that_must_use_the_old_tool_again_does_not_take_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Broken(monkeypatch, NFT)
    host.applier.apply_all([NFT, TakeBack("wg0", IPTABLES)])
    assert host.done == [IPTABLES]
    assert host.applier.as_done([NFT], [IPTABLES]) == (IPTABLES,)


def test_a_tool_that_broke_meanwhile_gives_way_and_what_it_left_stays_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new = SetFirewall("wg0", "nft", 4, 2)
    change, end = Replace("wg0", NFT, new), TakeBack("wg0", NFT)
    host = Broken(monkeypatch, change, end)
    host.applier.apply_all([change])
    by_iptables = SetFirewall("wg0", "iptables", 4, 2)
    assert host.applier.as_done([new], [NFT]) == (by_iptables, NFT)
    assert "the IPv4 guard of wg0 stays" in host.said[-1]


def test_no_other_step_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Broken(monkeypatch, LINK)
    with pytest.raises(HostError):
        host.applier.apply_all([LINK])
