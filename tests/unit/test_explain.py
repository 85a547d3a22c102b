"""Why each step is done: every kind of step has a reason, and reasons are told where they are asked
for."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network
from typing import Any, get_args

import pytest

from pywg.plan import steps
from pywg.plan.explain import reason
from pywg.plan.steps import Step
from pywg.tunnel.trace import tell

# What the fields of steps can be.
VALUES: dict[str, Any] = {
    "address": ip_interface("10.0.0.1/24"),
    "network": ip_network("0.0.0.0/0"),
    "table": 51820,
    "mark": 51820,
    "mtu": 1420,
    "version": 4,
    "priority": 7,
    "text": "something",
    "command": "echo hi",
    "is_only": True,
    "owners": ("user:1000",),
    "tool": "nft",
    "manager": "file",
    "target": "/etc/resolv.conf",
    "servers": ("10.0.0.53",),
    "socket_netns": None,
    "netns": "inner",
}
WRAPPED = steps.AddRule("wg0", 4, 7, 51820)


def made(kind: type[Step]) -> Step:
    """One of each kind, with values for all of its fields."""
    inner = {"old": WRAPPED, "new": WRAPPED, "step": WRAPPED}
    chosen = VALUES | inner
    names = [name for name in kind.__match_args__ if name in chosen]
    return kind("wg0", **{name: chosen[name] for name in names})


@pytest.mark.parametrize("kind", get_args(Step), ids=lambda kind: kind.__name__)
def test_every_step_has_a_reason_of_one_sentence(kind: type[Step]) -> None:
    said = reason(made(kind))
    assert 10 < len(said) < 140
    assert "\n" not in said
    assert ". " not in said
    assert said[0].islower() or said.startswith("AllowedIPs"), "it goes on from the command"


def test_a_step_inside_another_has_its_reason() -> None:
    assert reason(steps.Ensure("wg0", WRAPPED)) == reason(WRAPPED)
    assert reason(steps.TakeBack("wg0", WRAPPED)) == reason(WRAPPED.undo())


def test_the_two_rules_of_a_default_route_are_told_apart() -> None:
    first, second = (reason(steps.AddRule("wg0", 4, 7, mark)) for mark in (None, 51820))
    assert "local network" in first
    assert "goes into the tunnel" in second


class Lines:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def doing(self, command: str) -> None:
        self.lines.append(command)

    def warn(self, text: str) -> None:
        self.lines.append(f"! {text}")


class Curious(Lines):
    def because(self, reason: str) -> None:
        self.lines.append(f"# {reason}")


def test_who_does_not_ask_is_told_no_reason() -> None:
    plain, curious = Lines(), Curious()
    for reporter in (plain, curious):
        tell(reporter, WRAPPED)
        tell(reporter, steps.Note("wg0", "a warning has its reason in it"))
    assert plain.lines == [str(WRAPPED), "! a warning has its reason in it"]
    assert curious.lines == [plain.lines[0], f"# {reason(WRAPPED)}", plain.lines[1]]
