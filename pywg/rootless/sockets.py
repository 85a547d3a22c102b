"""Sockets of a program inside a tunnel: the kernel's, but for names.

Python looks a name up in this process, by the name servers of the host. So a socket of a tunnel
looks names up itself, before Python does, by those of the tunnel.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Self

from pywg.rootless.inside import AddressInfo

#: host, port, family, type, protocol
LookUp = Callable[[str, Any, int, int, int], list[AddressInfo]]

_INTERNET = (socket.AF_INET, socket.AF_INET6)
# What Python reads as an address without asking anybody.
_SPELLED = ("", "<broadcast>")


class TunnelSocket(socket.socket):
    """A socket inside a tunnel. All is as with socket.socket, but that a name given to ``connect``,
    ``bind`` or ``sendto`` is looked up by the tunnel's DNS, never by the host's.

    It keeps its network namespace when the tunnel is closed, but nothing leads out of it then. A
    forked child may go on with it, as with any socket; to look up a name takes the parent.
    """

    __slots__ = ("_look_up",)

    def __init__(self, *arguments: Any, look_up: LookUp | None = None, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._look_up = look_up

    def connect(self, address: Any, /) -> None:
        super().connect(self._numeric(address))

    def connect_ex(self, address: Any, /) -> int:
        return super().connect_ex(self._numeric(address))

    def bind(self, address: Any, /) -> None:
        super().bind(self._numeric(address))

    def sendto(self, data: Any, *rest: Any) -> int:
        if len(rest) < 2:
            return super().sendto(data, self._numeric(*rest))
        return super().sendto(data, rest[0], self._numeric(rest[1]))

    def sendmsg(self, *arguments: Any) -> int:
        if len(arguments) > 3 and arguments[3] is not None:
            arguments = (*arguments[:3], self._numeric(arguments[3]))
        return super().sendmsg(*arguments)

    def dup(self) -> Self:
        twin = super().dup()
        twin._look_up = self._look_up
        return twin

    def _numeric(self, address: Any) -> Any:
        """The address as Python takes it without looking anything up."""
        if self.family not in _INTERNET or not isinstance(address, tuple) or not address:
            return address
        host = address[0]
        if not isinstance(host, str) or host in _SPELLED or is_numeric(host):
            return address
        if self._look_up is None:
            raise socket.gaierror(socket.EAI_AGAIN, f"{host}: not looked up outside the tunnel")
        found = self._look_up(host, address[1], self.family, self.type, self.proto)[0][4]
        return (*found[:2], *address[2:3], *found[3:]) if len(address) > 2 else found


def is_numeric(host: str) -> bool:
    """An IPv4 or IPv6 address without a zone: a zone has its number inside."""
    for family in _INTERNET:
        try:
            socket.inet_pton(family, host)
        except (OSError, UnicodeError, ValueError):
            continue
        return True
    return False
