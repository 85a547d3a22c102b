"""Any WireGuard interface by its name: a userspace one by its socket, the kernel's by netlink.

The one front door of the verbs of `wg`. As wg(8) does it, a socket goes first. Netlink, and with it
pyroute2, is loaded only where the kernel may have something to say.
"""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from pywg.errors import UapiError
from pywg.wireguard import socket as uapi_socket
from pywg.wireguard import uapi
from pywg.wireguard.changes import Changes
from pywg.wireguard.status import InterfaceStatus

# There for a module that is built in as well. Without it the kernel has no WireGuard interfaces.
KERNEL_MODULE = Path("/sys/module/wireguard")
_NOBODY_LISTENS = frozenset({errno.ENOENT, errno.ECONNREFUSED})


def interfaces() -> list[str]:
    """All there are, in the order of `wg show`: those of the kernel first."""
    kernel: list[str] = []
    if KERNEL_MODULE.exists():
        from pywg.wireguard import netlink as kernel_wireguard

        kernel = kernel_wireguard.interfaces()
    return [*kernel, *uapi_socket.interfaces()]


def get(name: str, *, bindings: bool = False) -> InterfaceStatus:
    """What an interface does. Raises UapiError or NetworkError.

    With ``bindings`` also what its sockets are bound to, which takes a second question; the
    sockets of another implementation and of the kernel are bound to nothing.
    """
    try:
        status = uapi_socket.get(name)
        if bindings:
            with contextlib.suppress(UapiError):
                uapi.add_bindings(status, uapi_socket.report(name))
        return status
    except UapiError as error:
        if not _may_be_the_kernels(name, error):
            raise
    from pywg.wireguard import netlink as kernel_wireguard

    return kernel_wireguard.get(name)


def fwmark(name: str) -> int | None:
    """What an interface marks its datagrams with; without reading what is told of its peers, of
    which there may be very many. Raises as ``get`` does."""
    try:
        return uapi_socket.fwmark(name) or None
    except UapiError as error:
        if not _may_be_the_kernels(name, error):
            raise
    from pywg.wireguard import netlink as kernel_wireguard

    return kernel_wireguard.get(name).fwmark or None


def change(name: str, changes: Changes) -> None:
    """Changes a running interface. Raises UapiError or NetworkError."""
    try:
        return uapi_socket.change(name, changes)
    except UapiError as error:
        if not _may_be_the_kernels(name, error):
            raise
    from pywg.wireguard import netlink as kernel_wireguard

    return kernel_wireguard.change(name, changes)


def _may_be_the_kernels(name: str, error: UapiError) -> bool:
    if error.os_errno not in _NOBODY_LISTENS or not KERNEL_MODULE.exists():
        return False
    from pywg.host import network

    return network.exists(name)
