"""Where a tunnel is to live: what its file says, unless the caller says otherwise."""

from __future__ import annotations

from pywg.config import Config
from pywg.host import netns
from pywg.plan.facts import Location


def locate(
    config: Config,
    backend: str | None = None,
    inner: str | None = None,
    outer: str | None = None,
) -> Location:
    """``inner`` is the network namespace of the interface, ``outer`` that of its sockets. Raises
    PywgError if one of them is not there."""
    interface = config.interface
    location = Location(
        "kernel" if (backend or interface.backend) == "kernel" else "userspace",
        inner or interface.netns,
        outer or interface.socket_netns,
    )
    netns.check(location.netns)
    netns.check(location.socket_netns)
    return location
