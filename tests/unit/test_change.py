"""The plan of `pywg reload`: from what was done to what the file asks for now."""

from __future__ import annotations

import pytest

from pywg.plan import build
from pywg.plan.change import change as changes
from pywg.plan.change import lasting
from pywg.plan.facts import Dns, Facts
from pywg.plan.steps import AddRule, Ensure, Note, Replace, Step, TakeBack
from tests.unit.test_plan import config


def steps(*arguments: str, facts: Facts = Facts()) -> list[Step]:  # noqa: B008 - a frozen value
    return build.plan("wg0", config(*arguments), facts)


def change(before: list[Step], after: list[Step]) -> list[str]:
    """The lines of a reload, without the first, which is always that of the peers."""
    made, done = changes(lasting(before), after)
    assert list(map(str, done)) == list(map(str, lasting(after)))
    first, *rest = (str(step) for step in made)
    assert first == "wg syncconf wg0 /dev/stdin"
    return rest


FULL = steps("Address=10.0.0.2/32", "0.0.0.0/0")
PLAIN = steps("Address=10.0.0.2/24", "10.1.0.0/16")


def test_what_is_as_it_was_is_left_alone() -> None:
    assert change(FULL, FULL) == []


def test_hooks_are_not_run() -> None:
    assert change(PLAIN, steps("Address=10.0.0.2/24\nPreUp=x\nPostUp=x", "10.1.0.0/16")) == []


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        (PLAIN, steps("Address=10.0.0.2/24\nMTU=1300", "10.1.0.0/16"), ["link set mtu 1300 up"]),
        (
            PLAIN,
            steps("Address=10.0.0.2/24", "10.2.0.0/16"),
            ["-4 route add 10.2.0.0/16", "-4 route delete 10.1.0.0/16"],
        ),
        # The kernel takes the routes with the last address: they are made sure of.
        (
            PLAIN,
            steps("Address=10.9.0.2/24", "10.1.0.0/16"),
            [
                "-4 address add 10.9.0.2/24",
                "-4 address delete 10.0.0.2/24",
                "-4 address add 10.9.0.2/24",
                "-4 route add 10.1.0.0/16",
            ],
        ),
        # The first of a network is what is sent from.
        (
            steps("Address=10.0.0.2/24", "10.1.0.0/16"),
            steps("Address=10.0.0.1/24,10.0.0.2/24", "10.1.0.0/16"),
            [
                "-4 address add 10.0.0.1/24",
                "-4 address delete 10.0.0.2/24",
                "-4 address add 10.0.0.1/24",
                "-4 address add 10.0.0.2/24",
                "-4 route add 10.1.0.0/16",
            ],
        ),
        (
            steps("Address=10.0.0.1/24"),
            steps("Address=10.0.0.1/24,10.0.0.2/24"),
            ["-4 address add 10.0.0.2/24"],
        ),
        (
            steps("Address=fd00::2/64"),
            steps("Address=fd00::1/64,fd00::2/64"),
            ["-6 address add fd00::1/64"],
        ),
    ],
)
def test_only_what_differs_is_changed(
    before: list[Step], after: list[Step], lines: list[str]
) -> None:
    assert change(before, after) == [_with_device(line) for line in lines]


def _with_device(line: str) -> str:
    return f"ip {line} dev wg0"


def test_what_is_new_comes_before_what_goes() -> None:
    """Else the traffic of a moment would go out beside the tunnel."""
    after = steps("Address=10.0.0.2/32", "0.0.0.0/1,128.0.0.0/1")
    lines = change(FULL, after)
    assert lines.index("ip -4 route add 128.0.0.0/1 dev wg0") < lines.index(
        "ip -4 rule delete not fwmark 51820 table 51820"
    )


def test_valid_mark_stays_as_it_is() -> None:
    assert not any("sysctl" in line for line in change(FULL, PLAIN))


def test_rules_keep_their_places() -> None:
    elsewhere = Facts(rule_priorities={4: (0, 32000, 32766)})
    assert change(FULL, steps("Address=10.0.0.2/32", "0.0.0.0/0", facts=elsewhere)) == []
    made, done = changes(
        lasting(FULL),
        steps("Address=10.0.0.2/32\nFwMark=7", "0.0.0.0/0", facts=elsewhere),
    )
    assert [(rule.priority, rule.mark) for rule in made if isinstance(rule, AddRule)] == [
        (32765, 7)
    ]
    assert [rule.priority for rule in done if isinstance(rule, AddRule)] == [32764, 32765]


def test_names_are_told_in_place() -> None:
    before = steps("DNS=10.0.0.1")
    assert change(before, steps("DNS=10.0.0.2")) == ["write /etc/resolv.conf"]
    assert change(before, steps("")) == ["restore /etc/resolv.conf"]
    by_another = Facts(dns=Dns("resolvconf", "wg0"))
    assert change(before, steps("DNS=10.0.0.1", facts=by_another)) == [
        "resolvconf -a wg0 -m 0 -x",
        "restore /etc/resolv.conf",
    ]


def test_every_change_knows_its_undo() -> None:
    made, _ = changes(lasting(FULL), steps("Address=10.0.0.3/32\nMTU=1300", "::/0"))
    for step in made:
        undo = step.undo()
        assert undo is not None or isinstance(step, (Note, Ensure))
        if isinstance(step, TakeBack):
            assert undo in FULL
        if isinstance(step, Replace):
            assert undo is not None
            assert undo.undo() == step
