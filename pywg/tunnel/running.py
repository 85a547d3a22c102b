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
    """The record of a tunnel that is up. Raises PywgError if there is none, or not for us."""
    found = record.read(name)
    if found is None:
        raise PywgError(f"{name} is not up by `pywg up` (see: pywg show, pywg syncconf)")
    check_home(found)
    return found


def check_home(found: Record) -> None:
    """Raises PywgError in another network namespace than the tunnel was brought up in: records and
    sockets are of all namespaces, interfaces and routes of one."""
    if is_foreign(found) and netns.known_as(found.home):
        raise PywgError(elsewhere(found.name, found.home))


def is_foreign(found: Record) -> bool:
    """Whether it was brought up in another network namespace, which may be gone."""
    is_named = found.location.netns is not None and found.location.socket_netns is not None
    return not is_named and found.home not in (0, netns.identity())


def check_here(name: str) -> None:
    """Raises PywgError if a device of this name answers whose interface is not here. For one that
    has no record."""
    process = uapi_socket.owner(name)
    home = netns.identity(str(process)) if process else 0
    if home not in (0, netns.identity()) and not network.exists(name):
        raise PywgError(elsewhere(name, home))


def name_in_use(name: str) -> PywgError:
    """That a device of this name answers, and what can be done about it where we are."""
    found = record.read(name)
    process = uapi_socket.owner(name)
    home = found.home if found else netns.identity(str(process)) if process else 0
    if home in (0, netns.identity()) or network.exists(name):
        return PywgError(f"{name} already exists (take it down first: pywg down {name})")
    place = netns.known_as(home)
    where = f", {place}" if place else ""
    return PywgError(
        f"{name} already exists in another network namespace{where} "
        "(a name is one of all of them: choose another)"
    )


def elsewhere(name: str, home: int) -> str:
    where = netns.known_as(home)
    return f"{name} is in another network namespace, {where}, and is to be changed there"
