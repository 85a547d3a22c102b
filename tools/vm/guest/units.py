"""pywg@wg0 as systemd's service: enabled, booted again, reloaded, killed."""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path

from tools.lab.namespaces import run
from tools.lab.waiting import wait_until
from tools.vm.guest import place
from tools.vm.guest.place import PATIENCE, check_traffic, is_active, systemctl, unit
from tools.vm.guest.pywg_here import pywg


def enable() -> str:
    """`systemctl enable --now` of the units that pywg installs."""
    place.write_config(0)
    pywg("install-units")
    systemctl("daemon-reload")
    systemctl("enable", "--now", unit(0))
    assert is_active(unit(0)), systemctl("status", unit(0), check=False)
    check_traffic(0)
    return "installed, enabled, active, traffic over IPv4 and IPv6"


def reboot() -> str:
    """After a reboot nobody has to do anything."""
    wait_until(lambda: is_active(unit(0)), f"{unit(0)} is active", PATIENCE, every=place.EVERY)
    check_traffic(0)
    return "active after the boot, traffic over IPv4 and IPv6"


def reload() -> str:
    """A reload changes what the file changes, and the session lives on."""
    check_traffic(0)
    main, before = main_pid(0), place.handshake(0)
    place.write_config(0, "MTU = 1380", more="PersistentKeepalive = 21")
    systemctl("reload", unit(0))
    assert place.keepalive(0) == "21"
    assert "mtu 1380" in run("ip", "link", "show", "wg0")
    assert place.echoes("10.99.0.2", 3), "the session did not survive the reload"
    assert place.handshake(0) == before, "a reload began a handshake"
    assert main_pid(0) == main, "a reload began another process"
    return "keepalive and MTU are new, session and process are the same"


def killed() -> str:
    """Restart=: kill -9 of each process of the service in its turn."""
    place.settle(0)
    victims = len(pids(0))
    for which in range(victims):
        before = pids(0)
        os.kill(before[which], signal.SIGKILL)
        wait_until(
            functools.partial(is_another, before),
            f"{unit(0)} is up again without process {which + 1} of {victims}",
            2 * PATIENCE,
            every=place.EVERY,
        )
        check_traffic(0)
    return f"up again by itself after kill -9 of each of its {victims} processes"


def is_another(before: list[int]) -> bool:
    """Whether the service is up, with none of these processes."""
    return is_active(unit(0)) and not set(pids(0)) & set(before)


def main_pid(number: int) -> int:
    return int(systemctl("show", "--property=MainPID", "--value", unit(number)))


def pids(number: int) -> list[int]:
    """Of the service, the main one first."""
    group = systemctl("show", "--property=ControlGroup", "--value", unit(number))
    try:
        text = Path(f"/sys/fs/cgroup{group}/cgroup.procs").read_text()
    except OSError:
        return []
    main = main_pid(number)
    return sorted(map(int, text.split()), key=lambda pid: (pid != main, pid))
