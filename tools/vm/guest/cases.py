"""The cases by name, in their order; each says in one line what was seen, or raises."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tools.vm.guest import backends, likeness, managers, resolving, sleeping, units, upgrading


class Case(NamedTuple):
    check: Callable[[], str]
    seconds: int
    boot: int = 2


CASES = {
    "enable": Case(units.enable, 180, boot=1),
    "reboot": Case(units.reboot, 180),
    "reload": Case(units.reload, 120),
    "upgrade": Case(upgrading.upgrade, 240),
    "daemon": Case(upgrading.daemon, 240),
    "killed": Case(units.killed, 300),
    "resolved": Case(resolving.resolved, 180),
    "network-manager": Case(managers.network_manager, 300),
    "networkd": Case(managers.networkd, 300),
    "backend": Case(backends.backend, 300),
    "beside": Case(backends.beside, 180),
    "likeness": Case(likeness.likeness, 120),
    # Last: a guest that does not wake up says nothing more.
    "suspend": Case(sleeping.suspend, 180),
}
