"""What healing says of what it puts back."""

from __future__ import annotations

from ipaddress import ip_network

from pywg.plan.steps import AddRoute, LinkUp, Step
from pywg.tunnel import heal


def routes(count: int) -> list[Step]:
    return [AddRoute("wg0", ip_network(f"10.{number}.0.0/16")) for number in range(count)]


def test_few_things_are_told_one_by_one() -> None:
    steps: list[Step] = [LinkUp("wg0", 1420), *routes(heal.EACH_TOLD)]
    assert heal.told(steps) == [str(step) for step in steps]


def test_of_many_alike_the_first_is_told_and_how_many_more() -> None:
    lines = heal.told([LinkUp("wg0", 1420), *routes(200)])
    assert len(lines) == 2
    assert lines[1] == f"{routes(1)[0]}, and 199 more of its kind"
