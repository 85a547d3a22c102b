"""Gives an interface its keys, peers and mark; and takes a change back.

The same for a userspace device and for the kernel's. Keys go by socket or by netlink, never by
argument or file.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from ipaddress import ip_address

from pywg import plan, wireguard
from pywg.wireguard import socket as uapi_socket, uapi
from pywg.wireguard.status import InterfaceStatus
from pywg.wireguard.changes import AllowedIPChange, Changes, PeerChange, synchronizing
from pywg.config import AllowedIP, Config, InterfaceSection, PeerSection
from pywg.errors import UapiError
from pywg.plan import Backend, Step

BIND_DEVICE, BIND_ADDRESS = "pywg_bind_device", "pywg_bind_address"


class Configurer:
    """Performs Configure, Reconfigure and its undo. Endpoints of ``config`` are numeric."""

    def __init__(self, config: Config, backend: Backend) -> None:
        self._config = config
        self._backend = backend
        self._before: Config | None = None

    def __call__(self, step: Step) -> None:
        match step:
            case plan.Configure(mark=mark):
                self._set(step.name, with_mark(self._config, mark), None)
            case plan.Reconfigure(mark=mark):
                present = wireguard.get(step.name)
                self._before = config_of(present, bound(step.name))
                self._set(step.name, with_mark(self._config, mark or 0), present)
            case plan.RestoreConfiguration() if self._before is not None:
                present = wireguard.get(step.name)
                self._set(step.name, self._before, present)

    def _set(self, name: str, config: Config, present: InterfaceStatus | None) -> None:
        try:
            if self._backend == "kernel":
                changes = changes_of(config)
                wireguard.change(
                    name, changes if present is None else synchronizing(changes, present)
                )
            else:
                text = uapi.set_text(config, present)
                released = "" if present is None else release(name, config.interface)
                uapi_socket.request(name, f"set=1\n{released}{text}\n", uapi_socket.SET_TIMEOUT_S)
        except UapiError as error:
            if error.os_errno == errno.ENOMEM:
                hint = "lower the number of peers, or raise --memory-limit"
                raise UapiError(f"{name}: out of memory ({hint})", error.os_errno) from None
            raise


def with_mark(config: Config, mark: int | None) -> Config:
    return replace(config, interface=replace(config.interface, fwmark=mark))


def bound(name: str) -> dict[str, str]:
    """What the sockets are bound to; another implementation, or the kernel, binds to nothing."""
    try:
        said = uapi_socket.report(name).other
    except UapiError:
        return {}
    return {key: said[key] for key in (BIND_DEVICE, BIND_ADDRESS) if said.get(key)}


def release(name: str, interface: InterfaceSection) -> str:
    """The lines that take back what the file no longer says."""
    kept = {BIND_DEVICE: interface.bind_device, BIND_ADDRESS: interface.bind_addresses}
    return "".join(f"{key}=\n" for key in bound(name) if not kept[key])


def config_of(status: InterfaceStatus, bindings: dict[str, str]) -> Config:
    """What would make a device be as this one is."""
    addresses = bindings.get(BIND_ADDRESS, "").split(", ")
    return Config(
        InterfaceSection(
            private_key=status.private_key,
            listen_port=status.listen_port,
            fwmark=status.fwmark,
            bind_device=bindings.get(BIND_DEVICE),
            bind_addresses=tuple(ip_address(address) for address in addresses if address),
        ),
        tuple(
            PeerSection(
                peer.public_key,
                peer.preshared_key,
                tuple(AllowedIP(network) for network in peer.allowed_ips),
                peer.endpoint,
                peer.persistent_keepalive,
            )
            for peer in status.peers
        ),
    )


def changes_of(config: Config) -> Changes:
    """All of a file, for a new interface."""
    interface = config.interface
    peers = (
        PeerChange(
            peer.public_key,
            preshared_key=peer.preshared_key,
            endpoint=peer.endpoint,
            persistent_keepalive=peer.persistent_keepalive,
            replace_allowed_ips=True,
            allowed_ips=tuple(AllowedIPChange(allowed.network) for allowed in peer.allowed_ips),
        )
        for peer in config.peers
    )
    return Changes(
        interface.private_key, interface.listen_port, interface.fwmark, True, tuple(peers)
    )
