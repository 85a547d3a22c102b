"""Steps carried out, all or nothing; and one case for each kind of step. No kernel."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from pywg.errors import NetworkError
from pywg.plan.build import plan
from pywg.plan.facts import Facts, Location
from pywg.plan.steps import Configure, DeleteAddress, LinkUp, Step
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
