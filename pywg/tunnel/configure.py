"""Gives an interface its keys, peers and mark; and takes a change back.

The same for a userspace device and for the kernel's. Keys go by socket or by netlink, never by
argument or file.
"""

from __future__ import annotations

import errno
from dataclasses import replace

from pywg import wireguard
from pywg.config import Config
from pywg.errors import UapiError
from pywg.plan.steps import Configure, Reconfigure, RestoreConfiguration
from pywg.wireguard.changes import Changes, of_config, of_status, synchronizing
from pywg.wireguard.status import InterfaceStatus


class Configurer:
    """Does Configure, Reconfigure and its undo. Endpoints of ``config`` are numeric."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._before: InterfaceStatus | None = None

    def __call__(self, step: Configure | Reconfigure | RestoreConfiguration) -> None:
        match step:
            case Configure(mark=mark):
                # What PreUp has set stays.
                wanted = of_config(with_mark(self._config, mark))
                _change(step.name, replace(wanted, replace_peers=False))
            case Reconfigure(mark=mark):
                self._before = wireguard.get(step.name, bindings=True)
                wanted = of_config(with_mark(self._config, mark or 0))
                _change(step.name, synchronizing(wanted, self._before))
            case RestoreConfiguration():
                if self._before is not None:
                    present = wireguard.get(step.name, bindings=True)
                    _change(step.name, synchronizing(of_status(self._before), present))


def _change(name: str, changes: Changes) -> None:
    try:
        wireguard.change(name, changes)
    except UapiError as error:
        if error.os_errno == errno.ENOMEM:
            hint = "lower the number of peers, or raise --memory-limit"
            raise UapiError(f"{name}: out of memory ({hint})", error.os_errno) from None
        raise


def with_mark(config: Config, mark: int | None) -> Config:
    return replace(config, interface=replace(config.interface, fwmark=mark))
