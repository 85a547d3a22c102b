"""Nothing grows faster than the file: calls are counted, and no time is taken."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from types import FrameType
from typing import Any

import pytest

from pywg.config import Config, parse
from pywg.config.document import rewrite
from pywg.config.model import IPNetwork, without
from pywg.errors import ConfigError
from pywg.plan import build
from pywg.plan.change import change, lasting
from pywg.plan.facts import Facts, Location
from pywg.tunnel.record import Record
from pywg.wireguard import changes, setconf, uapi
from tools.lab.keys import encode

FEW, MANY = 50, 200
# Sorting takes a little more than n; what is quadratic would take sixteen times as much.
RATIO_MAX = 5.5
HEAD = f"[Interface]\nPrivateKey = {encode(bytes([8] * 32))}\nAddress = 10.254.0.1/24\n"


def peer(number: int) -> str:
    return f"[Peer]\nPublicKey = {encode(number.to_bytes(32, 'big'))}\n"


def networks(count: int) -> list[IPNetwork]:
    return [ip_network(f"11.{place >> 7}.{2 * place & 255}.0/24") for place in range(count)]


def listed(count: int) -> str:
    return ", ".join(map(str, networks(count)))


def of_one_peer(count: int) -> str:
    return f"{HEAD}{peer(1)}AllowedIPs = {listed(count)}\n"


def of_many_lines(count: int) -> str:
    lines = (f"AllowedIPs = {network}\n" for network in networks(count))
    return HEAD + peer(1) + "".join(lines)


def of_many_peers(count: int) -> str:
    return HEAD + "".join(
        f"{peer(number)}AllowedIPs = {network}\nEndpoint = 192.0.2.{number & 255}:51820\n"
        for number, network in enumerate(networks(count), start=1)
    )


def with_many_addresses(count: int) -> str:
    addresses = "".join(
        f"Address = 172.16.{place >> 8}.{place & 255}/31\n" for place in range(0, 2 * count, 2)
    )
    return f"[Interface]\n{addresses}{peer(1)}AllowedIPs = {listed(count)}\n"


def with_holes(count: int) -> str:
    return f"{HEAD}{peer(1)}AllowedIPs = 0.0.0.0/0\n#!pywg ExcludedIPs = {listed(count)}\n"


def with_host_bits(count: int) -> str:
    return f"{HEAD}{peer(1)}AllowedIPs = {listed(count).replace('.0/', '.1/')}\n"


TEXTS = [
    of_one_peer,
    of_many_lines,
    of_many_peers,
    with_many_addresses,
    with_holes,
    with_host_bits,
]


def calls(do: Callable[[], object]) -> int:
    """How many functions are called, methods that compare included."""
    count = 0

    def note(_: FrameType, event: str, __: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        do()
    finally:
        sys.setprofile(before)
    return count


def check(make: Callable[[int], Callable[[], object]]) -> None:
    """``make`` prepares what is to be counted, for so many."""
    few, many = calls(make(FEW)), calls(make(MANY))
    assert many < RATIO_MAX * few, f"{few} calls for {FEW}, {many} for {MANY}"


def parsed(text: str) -> Config:
    return parse(text, "wg0.conf")


def less_one(config: Config) -> Config:
    """The last peer has one network less."""
    *others, last = config.peers
    return replace(config, peers=(*others, replace(last, allowed_ips=last.allowed_ips[:-1])))


over_texts = pytest.mark.parametrize("text", TEXTS)


@over_texts
def test_a_file_is_read_in_linear_time(text: Callable[[int], str]) -> None:
    check(lambda count: lambda: parsed(text(count)))


def test_a_file_of_mistakes_is_too() -> None:
    def read(count: int) -> None:
        with pytest.raises(ConfigError):
            parsed(HEAD + "Adress = 1\n" * count)

    check(lambda count: lambda: read(count))


def test_so_is_a_file_of_wg() -> None:
    def read(count: int) -> object:
        text = of_many_peers(count).replace("Address", "#")
        return setconf.parse(text, "wg0.conf", append=False, warn=lambda text: None)

    check(lambda count: lambda: read(count))


@over_texts
def test_a_plan_is_made_in_linear_time(text: Callable[[int], str]) -> None:
    def make(count: int) -> Callable[[], object]:
        config = parsed(text(count))
        return lambda: build.plan("wg0", config, Facts())

    check(make)


@over_texts
def test_a_file_is_saved_in_linear_time(text: Callable[[int], str]) -> None:
    def make(count: int) -> Callable[[], object]:
        config = parsed(text(count))
        return lambda: rewrite(text(count), replace(config, peers=config.peers[:1]))

    check(make)


def test_many_networks_less_many_holes_are_found_in_linear_time() -> None:
    def make(count: int) -> Callable[[], object]:
        found = networks(count)
        holes = [ip_network(f"{network.network_address}/25") for network in found]
        return lambda: without(found, holes)

    check(make)


@over_texts
def test_steps_are_recorded_in_linear_time(text: Callable[[int], str]) -> None:
    def make(count: int) -> Callable[[], object]:
        steps = lasting(build.plan("wg0", parsed(text(count)), Facts()))
        record = Record("wg0", "wg0.conf", Location(), tuple(steps))
        return lambda: Record.from_json(record.to_json())

    check(make)


@over_texts
def test_a_device_is_told_and_asked_in_linear_time(text: Callable[[int], str]) -> None:
    def make(count: int) -> Callable[[], object]:
        config = parsed(text(count))
        return lambda: told_and_asked(config)

    check(make)


def told_and_asked(config: Config) -> object:
    wanted = changes.of_config(config)
    answer = uapi.changes_text(wanted)
    for line in ("replace_peers=true\n", "replace_allowed_ips=true\n"):
        answer = answer.replace(line, "")
    present = uapi.parse_get(answer)
    return uapi.changes_text(changes.synchronizing(wanted, present))


def test_what_is_said_of_a_device_costs_no_more_with_many_peers() -> None:
    def make(count: int) -> Callable[[], object]:
        answer = f"fwmark=7\n{uapi.changes_text(changes.of_config(parsed(of_many_peers(count))))}"
        return lambda: uapi.parse_get(uapi.of_device(answer.replace("replace_peers=true\n", "")))

    assert calls(make(MANY)) == calls(make(FEW))


@over_texts
def test_a_reload_is_planned_in_linear_time(text: Callable[[int], str]) -> None:
    def make(count: int) -> Callable[[], object]:
        config = parsed(text(count))
        done = lasting(build.plan("wg0", config, Facts()))
        wanted = build.plan("wg0", less_one(config), Facts())
        return lambda: change(done, wanted)

    check(make)
