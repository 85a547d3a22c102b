"""Whether a tunnel runs, and whether `up` brought it up."""

from __future__ import annotations

from pywg.errors import PywgError
from pywg.host import netns, network
from pywg.plan.facts import Location
from pywg.tunnel import record
from pywg.tunnel.record import Record
from pywg.wireguard import socket as uapi_socket


def is_alive(name: str, location: Location) -> bool:
    """Whether there is such a WireGuard interface. A namesake of another kind is left alone."""
    with netns.entered(location.netns):
        if network.exists(name):
            with network.Network() as kernel:
                kind = kernel.kind(name)
            if kind == "wireguard":
                return True
            if kind != "tun":
                raise PywgError(f"{name} is no TUN device, so not a userspace WireGuard one")
    return uapi_socket.is_alive(name)


def recorded(name: str) -> Record:
    """The record of a tunnel that is up. Raises PywgError if there is none."""
    found = record.read(name)
    if found is None:
        raise PywgError(f"{name} is not up by `pywg up` (see: pywg show, pywg syncconf)")
    return found
