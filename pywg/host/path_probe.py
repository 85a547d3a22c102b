"""How large a datagram gets to an address: some are sent that no router may cut (DF), and routers
that cannot pass them on say so.

They are of zeros, which is no message of WireGuard's, so that an endpoint drops them. A path that
says nothing tells nothing: whether a datagram arrived is known only where it is refused. What a
router says the kernel remembers for ten minutes, as it does for any program.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

_MTU_DISCOVER = {4: (socket.IPPROTO_IP, 10), 6: (socket.IPPROTO_IPV6, 23)}
_RECVERR = {4: (socket.IPPROTO_IP, 11), 6: (socket.IPPROTO_IPV6, 25)}
_PROBE = 3  # IP_PMTUDISC_PROBE: DF, whatever the kernel knows of the path
_HEADERS = {4: 28, 6: 48}  # of IP and UDP
_ERROR = struct.Struct("=IBBBBII")  # struct sock_extended_err
_SPOOLED = 512
#: For all addresses together.
PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """A numeric address, a port, and the IP length that is tried first, in bytes."""

    host: str
    port: int
    size: int


@dataclass(frozen=True, slots=True)
class Heard:
    """``mtu``: the smallest that a router has named; None if none did. ``has_arrived``: the other
    end says that its port is closed. ``problem``: the name of another errno that came back."""

    mtu: int | None = None
    problem: str = ""
    has_arrived: bool = False


@dataclass(slots=True)
class _Probing:
    target: Target
    sock: socket.socket
    size: int
    heard: Heard = field(default=Heard())

    def send(self) -> None:
        version = ip_address(self.target.host).version
        try:
            self.sock.send(bytes(max(self.size - _HEADERS[version], 0)))
        except OSError as error:
            self._note(error.errno or 0, self.size)

    def listen(self) -> None:
        """One error that came back."""
        try:
            _, ancillary, _, _ = self.sock.recvmsg(_SPOOLED, _SPOOLED, socket.MSG_ERRQUEUE)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                self._note(error.errno or 0, 0)
            with contextlib.suppress(OSError):
                self.sock.recv(_SPOOLED)
            return
        for _, _, data in ancillary:
            if len(data) >= _ERROR.size:
                code, _, _, _, _, info, _ = _ERROR.unpack_from(data)
                self._note(code, info)

    def _note(self, code: int, mtu: int) -> None:
        if code == errno.EMSGSIZE and 0 < mtu < self.size:
            self.size = mtu
            self.heard = replace(self.heard, mtu=mtu)
            self.send()
        elif code == errno.ECONNREFUSED:
            self.heard = replace(self.heard, has_arrived=True)
        elif code != errno.EMSGSIZE:
            self.heard = replace(self.heard, problem=errno.errorcode.get(code, str(code)))

    @property
    def is_done(self) -> bool:
        return self.heard.has_arrived or bool(self.heard.problem)


def probe(
    targets: Iterable[Target], mark: int = 0, seconds: float = PATIENCE_S
) -> dict[Target, Heard]:
    """All at the same time. With a ``mark``, which takes NET_ADMIN, as a tunnel's own datagrams go.
    Raises PermissionError."""
    with contextlib.ExitStack() as stack:
        under_way = {}
        for target in targets:
            sock = stack.enter_context(_socket(target, mark))
            try:
                sock.connect((target.host, target.port or 9))
            except OSError:
                continue  # there is no way there, which routes tell
            under_way[sock.fileno()] = _Probing(target, sock, target.size)
        for item in under_way.values():
            item.send()
        _wait(under_way, time.monotonic() + seconds)
        return {item.target: item.heard for item in under_way.values()}


def _wait(under_way: dict[int, _Probing], limit: float) -> None:
    poll = select.poll()
    for number in under_way:
        poll.register(number, 0)  # errors are told unasked
    while not all(item.is_done for item in under_way.values()):
        left = limit - time.monotonic()
        if left <= 0:
            return
        for number, _ in poll.poll(left * 1000):
            under_way[number].listen()


def _socket(target: Target, mark: int) -> socket.socket:
    version = ip_address(target.host).version
    sock = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if mark:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        sock.setsockopt(*_MTU_DISCOVER[version], _PROBE)
        sock.setsockopt(*_RECVERR[version], 1)
    except OSError:
        sock.close()
        raise
    return sock
