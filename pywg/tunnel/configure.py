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
from pywg.wireguard.changes import Changes, PeerChange, of_config, of_status, synchronizing
from pywg.wireguard.status import InterfaceStatus


class Configurer:
    """Does Configure, Reconfigure and its undo. Endpoints of ``config`` are numeric. Where it is
    ``shared``, peers that are not in the file are somebody else's to change."""

    def __init__(self, config: Config, *, shared: bool = False) -> None:
        self._config = config
        self._shared = shared
        self._before: InterfaceStatus | None = None

    def __call__(self, step: Configure | Reconfigure | RestoreConfiguration) -> None:
        match step:
            case Configure(mark=mark):
                # What PreUp has set stays.
                wanted = of_config(with_mark(self._config, mark))
                _change(step.name, replace(wanted, replace_peers=False))
            case Reconfigure(mark=mark):
                self._before = self._ours(step.name)
                wanted = of_config(with_mark(self._config, mark or 0))
                self._synchronize(step.name, wanted, self._before)
            case RestoreConfiguration():
                if self._before is not None:
                    self._synchronize(step.name, of_status(self._before), self._ours(step.name))

    def _ours(self, name: str) -> InterfaceStatus:
        status = wireguard.get(name, bindings=True)
        if self._shared:
            known = {peer.public_key for peer in self._config.peers}
            status.peers = [peer for peer in status.peers if peer.public_key in known]
        return status

    def _synchronize(self, name: str, wanted: Changes, present: InterfaceStatus) -> None:
        changes = synchronizing(wanted, present)
        if self._shared:
            changes = replace(changes, replace_peers=False)
            if not wanted.peers:
                gone = (PeerChange(peer.public_key, remove=True) for peer in present.peers)
                changes = replace(changes, peers=tuple(gone))
        _change(name, changes)


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
