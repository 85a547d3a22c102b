"""Where packets go while a tunnel that carries everything comes, changes and goes: seen by
sniffers among 20 000 datagrams a second. The place is drawn in tools/leaks.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pywg.host import kill_switch
from tools.lab.programs import REPOSITORY, Program
from tools.lab.ways import CLEAR, TARGETS, TUNNEL
from tools.leaks import (
    FAR,
    NEAR,
    SWITCH,
    Hook,
    Place,
    Watch,
    everything,
    forwarding,
    placed,
    watched,
)

pytestmark = pytest.mark.pywgd_only


@pytest.fixture
def place(subject: Program, tmp_path: Path) -> Iterator[Place]:
    with placed(tmp_path) as made:
        yield made


def ways(watch: Watch, targets: tuple[int, ...]) -> dict[str, list[int]]:
    return {TARGETS[index].address: watch.ways(index) for index in targets}


def assert_ways(watch: Watch, *expected: int) -> None:
    """Of all that is for the tunnel; what is for the local network never enters it."""
    assert ways(watch, FAR) == {TARGETS[index].address: list(expected) for index in FAR}
    assert ways(watch, NEAR) == {TARGETS[index].address: [CLEAR] for index in NEAR}


# ---- with a kill switch


def assert_nothing_in_clear(watch: Watch) -> None:
    """In any phase; and the table of docs/security.md has them all."""
    rows = watch.rows()
    assert [row for row in rows if row.clear] == []
    assert min(row.sent for row in rows) > 1000
    document = (REPOSITORY / "docs/security.md").read_text()
    told = re.findall(r"^\| (.*) \| (IPv\d) \| .* \| 0 \|$", document, re.MULTILINE)
    assert {(row.phase, f"IPv{row.version}") for row in rows} <= set(told)


def test_nothing_leaves_beside_the_tunnel_whatever_happens(place: Place) -> None:
    before = place.host.look(place.name)
    watch = everything(place)
    assert_nothing_in_clear(watch)
    # Nor between the phases: in clear only before, between and after the three tunnels.
    assert ways(watch, FAR) == {
        TARGETS[index].address: [CLEAR, TUNNEL] * 3 + [CLEAR] for index in FAR
    }
    assert place.host.look(place.name) == before


def test_nothing_is_forwarded_beside_the_tunnel(place: Place) -> None:
    assert_nothing_in_clear(forwarding(place))


def test_a_switch_that_is_thrown_again_stands_meanwhile(place: Place) -> None:
    """250 times, each a transaction: a gap is one of microseconds."""
    with watched(place) as watch:
        place.host.pywg("up", place.config(SWITCH, "FwMark = 51820"))
        watch.goes(TUNNEL, *FAR)
        again = "; ".join(kill_switch.rules(place.name, 51820, allows_lan=False).splitlines())
        with watch.phase("thrown again"):
            place.host.namespace.run("nft", "-i", text=f"{again}\n" * 250, timeout=60)
        place.host.pywg("down", place.name)
    assert [row for row in watch.rows() if row.clear] == []


# ---- without a kill switch: each half of `up` and `down` changes the way once


def test_up_and_down_change_the_way_once_each_and_reload_never(place: Place) -> None:
    with watched(place) as watch:
        place.host.pywg("up", place.config())
        watch.goes(TUNNEL, *FAR)
        for lines, networks in (
            (["FwMark = 0x1234"], "0.0.0.0/0, ::/0"),
            (["MTU = 1300", "DNS = 10.9.0.1"], "0.0.0.0/0, ::/0, 10.77.0.0/16, fd77::/32"),
            ([], "0.0.0.0/0, ::/0"),
        ):
            place.config(*lines, networks=networks)
            place.host.pywg("reload", place.name)
            watch.goes(TUNNEL, *FAR)
        place.host.pywg("down", place.name)
        watch.goes(CLEAR, *FAR)
    assert_ways(watch, CLEAR, TUNNEL, CLEAR)


def test_an_up_that_fails_goes_back_the_same_way(place: Place) -> None:
    hook = Hook(place.host.directory / "postup")
    path = place.config(f"PostUp = {hook.command}", "PostUp = false")
    with watched(place) as watch:
        process = place.host.start("up", path)
        hook.wait()
        watch.goes(TUNNEL, *FAR)
        hook.go_on()
        said = process.communicate(timeout=60)[0]
        assert process.returncode == 1, said
        watch.goes(CLEAR, *FAR)
    assert_ways(watch, CLEAR, TUNNEL, CLEAR)


def test_a_reload_that_makes_a_tunnel_full_changes_the_way_once(place: Place) -> None:
    with watched(place) as watch:
        place.host.pywg("up", place.config(networks="10.77.0.0/16"))
        place.config()
        place.host.pywg("reload", place.name)
        watch.goes(TUNNEL, *FAR)
    place.host.pywg("down", place.name)
    assert_ways(watch, CLEAR, TUNNEL)


def test_what_heals_goes_into_the_tunnel_again_also_from_connected_sockets(place: Place) -> None:
    with watched(place) as watch:
        place.host.pywg("up", place.config())
        watch.goes(TUNNEL, *FAR)
        for family in ("-4", "-6"):
            place.host.namespace.ip(family, "route", "flush", "table", "51820")
        watch.goes(TUNNEL, *FAR)
    place.host.pywg("down", place.name)
    assert ways(watch, NEAR) == {TARGETS[index].address: [CLEAR] for index in NEAR}
