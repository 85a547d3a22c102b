"""NetworkManager and systemd-networkd: started, restarted and stopped beside a full tunnel, and a
tunnel that comes up beside them. What they must not do: touch its interface, its routes, its rules.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.lab.namespaces import run
from tools.lab.waiting import wait_until
from tools.vm.guest import place
from tools.vm.guest.place import EVERY, FAR, NEAR, PATIENCE, UPLINK, systemctl
from tools.vm.guest.pywg_here import pywg

State = dict[str, Any]
TUNNEL = 2
NAME = f"wg{TUNNEL}"
# As of every interface that another program made and gave addresses to, the kernel's driver's too.
LEFT_ALONE = ("unmanaged", "connected (externally)")
SETTLES = 2.0  # seconds in which a manager that has started does what it does
SOCKETS = {"systemd-networkd.service": ["systemd-networkd.socket"]}
UPLINK_FILE = Path("/etc/systemd/network/10-uplink.network")


def network_manager() -> str:
    service = "NetworkManager.service"
    with full_tunnel() as before, ended_without_harm(service, before):
        check_untouched(service, before)
        again(before)
        wait_until(lambda: NAME in device_states(), f"NetworkManager sees {NAME}", PATIENCE, EVERY)
        state = device_states()[NAME]
        assert state in LEFT_ALONE, f"nmcli says {NAME} is {state!r}"
    return f"{state}; its start, restart and end changed nothing; up and down beside it"


def networkd() -> str:
    """It also manages the uplink here, so that it has something to configure."""
    service = "systemd-networkd.service"
    UPLINK_FILE.parent.mkdir(exist_ok=True)
    UPLINK_FILE.write_text(
        f"[Match]\nName={UPLINK}\n[Network]\nAddress={NEAR}/24\nGateway={FAR}\n"
        "ConfigureWithoutCarrier=yes\nKeepConfiguration=yes\n"
    )
    try:
        with full_tunnel() as before, ended_without_harm(service, before):
            check_untouched(service, before)
            again(before)
            uplink, ours = managed(UPLINK), managed(NAME)
            assert uplink == "configured", f"networkctl says {UPLINK} is {uplink}"
            assert ours == "unmanaged", f"networkctl says {NAME} is {ours}"
    finally:
        UPLINK_FILE.unlink()
    return "unmanaged; its start, restart and end changed nothing; up and down beside it"


@contextlib.contextmanager
def full_tunnel() -> Iterator[State]:
    """Up, and what is to be kept of it."""
    place.write_config(TUNNEL, allowed="0.0.0.0/0, ::/0")
    pywg("up", "--no-heal", NAME)
    try:
        place.check_traffic(TUNNEL)
        yield state()
    finally:
        pywg("down", NAME)


@contextlib.contextmanager
def ended_without_harm(service: str, before: State) -> Iterator[None]:
    """The manager is stopped at the end, with the socket that would start it again."""
    try:
        yield
    finally:
        systemctl("stop", service, *SOCKETS.get(service, ()))
    compare(before, f"systemctl stop {service}")


def check_untouched(service: str, before: State) -> None:
    for verb in ("start", "restart"):
        systemctl(verb, service)
        compare(before, f"systemctl {verb} {service}")


def again(before: State) -> None:
    """Down and up while the manager runs."""
    pywg("down", NAME)
    pywg("up", "--no-heal", NAME)
    compare(before, "down and up beside it")


def compare(before: State, cause: str) -> None:
    time.sleep(SETTLES)  # nothing tells that a manager will not do anything more
    found = differences(before, state())
    assert not found, f"after {cause}: {'; '.join(found)}"
    assert place.echoes(f"10.99.{TUNNEL}.2", 3), f"after {cause}: no traffic"


def state() -> State:
    """All that a manager could take away from a tunnel, or add to it. What each interface makes up
    for itself, its number and its link-local address, is left out."""
    link = json.loads(run("ip", "-d", "-j", "link", "show", NAME))[0]
    kept = ("mtu", "qdisc", "txqlen", "flags", "operstate", "inet6_addr_gen_mode")
    return {
        "link": {key: link.get(key) for key in kept},
        "addresses": [line for line in lines("address", "show", "dev", NAME) if "inet" in line],
        "rules": lines("rule") + lines("-6", "rule"),
        "routes": [
            line
            for line in lines("route", "show", "table", "all")
            + lines("-6", "route", "show", "table", "all")
            if NAME in line
        ],
    }


def lines(*arguments: str) -> list[str]:
    said = run("ip", *arguments)
    own = r"(valid_lft|preferred_lft|expires) \S+|(?<=fe80::)[\da-f]+:[\da-f:]+"
    return sorted(" ".join(re.sub(own, "", line).split()) for line in said.splitlines())


def differences(before: State, now: State) -> list[str]:
    found = []
    for key, had in before.items():
        if isinstance(had, dict):
            found += [f"{key} {had} is now {now[key]}"] if had != now[key] else []
            continue
        gone = [line for line in had if line not in now[key]]
        more = [line for line in now[key] if line not in had]
        found += [f"{key}: gone {gone}, new {more}"] if gone or more else []
    return found


def managed(name: str) -> str:
    """What systemd-networkd makes of an interface."""
    return run("networkctl", "list", "--no-legend", "--no-pager", name).split()[-1]


def device_states() -> dict[str, str]:
    said = run("nmcli", "--terse", "--fields", "DEVICE,STATE", "device")
    return dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
