"""The outside of the helper: starts it, asks it, and ends it.

Any thread may ask, and as many as like at the same time. What the helper makes is a descriptor
here, and stays usable when the helper has ended: a socket keeps the network namespace it was made
in.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pywg.errors import PywgError
from pywg.rootless import calls, refusal
from pywg.rootless.messages import (
    BYTES_MAX,
    ITEMS_MAX,
    AddRoutes,
    Answer,
    Failed,
    Found,
    Left,
    LookUp,
    Made,
    MakeInterface,
    MakeSocket,
    Request,
    Unknown,
    WhatIsLeft,
    decode,
    encode,
)

#: As socket.getaddrinfo returns them.
AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]

_FDS_MAX = 4
_WAIT_S = 3.0


class TunnelClosed(PywgError):
    """Nothing can be made in the tunnel any more: it was closed, or is another process's."""


class HelperGone(TunnelClosed):
    """The process inside has ended, so nothing more can be made there."""


@dataclass(frozen=True, slots=True)
class Interior:
    """Descriptors of what was made; the caller's to close."""

    tun: int
    user_namespace: int
    network_namespace: int
    notes: tuple[str, ...]


class Requests:
    """Asks the helper, by its socket; in whatever process that has a copy of it."""

    def __init__(self, stream: socket.socket) -> None:
        self._requests = stream

    def make_socket(
        self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, protocol: int = 0
    ) -> socket.socket:
        """A socket of the kernel's, inside. OSError as socket.socket raises it."""
        return as_socket(*self.ask(MakeSocket(family, kind, protocol)))

    def getaddrinfo(  # noqa: PLR0917 - as socket.getaddrinfo
        self,
        host: str | None,
        port: int | str | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[AddressInfo]:
        """As socket.getaddrinfo, by the tunnel's name servers. Raises socket.gaierror."""
        wanted = LookUp(host, "" if port is None else str(port), family, type, proto, flags)
        return addresses(self.ask(wanted)[0])

    def ask(self, request: Request) -> tuple[Answer, list[int]]:
        """The answer, and the descriptors that came with it."""
        with self.asked(request) as reply:
            return receive(reply)

    def asked(self, request: Request) -> socket.socket:
        """A socket from which ``receive`` reads the answer as soon as it is readable: for who has
        an event loop."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                socket.send_fds(self._requests, [encode(request)], [theirs.fileno()])
            except OSError:
                ours.close()
                raise HelperGone("the process inside the tunnel has ended") from None
        return ours

    def close(self) -> None:
        self._requests.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Inside(Requests):
    """A network namespace of its own, and the helper in it. Gone after ``close``, or when this
    process ends, however it ends."""

    def __init__(self) -> None:
        requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        super().__init__(requests)
        self._life, life = socket.socketpair()
        package = str(Path(__file__).resolve().parents[2])
        with theirs, life:
            descriptors = (theirs.fileno(), life.fileno())
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-S", "-m", "pywg.rootless.helper"),
                    *map(str, descriptors),
                ],
                env={**os.environ, "PYTHONPATH": package},
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
                process_group=0,  # signals of a terminal are not for it
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def requests(self) -> int:
        """The descriptor that another process asks by; it stays ours."""
        return self._requests.fileno()

    def fileno(self) -> int:
        """Readable when the helper has ended."""
        return self._life.fileno()

    def make_interface(self, wanted: MakeInterface, routes: Sequence[str]) -> Interior:
        """Raises refusal.Refused where this host does not allow it, with what would."""
        answer, fds = self.ask(wanted)
        if not isinstance(answer, Made) or len(fds) != 3:
            raise _error(answer)
        notes = list(answer.notes)
        for start in range(0, len(routes), ITEMS_MAX):
            some = tuple(routes[start : start + ITEMS_MAX])
            answer, _ = self.ask(AddRoutes(wanted.name, some))
            if not isinstance(answer, Made):
                for fd in fds:
                    os.close(fd)
                raise _error(answer)
            notes += answer.notes
        return Interior(fds[0], fds[1], fds[2], tuple(notes))

    def what_is_left(self) -> Left:
        answer, _ = self.ask(WhatIsLeft())
        if not isinstance(answer, Left):
            raise _error(answer)
        return answer

    def close(self) -> None:
        """Ends the helper. What it made lives as long as somebody holds it."""
        if self._life.fileno() < 0:
            return
        super().close()
        self._life.close()
        try:
            self._process.wait(_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def forget(self) -> None:
        """In a forked child: the helper is the parent's, and ends with it."""
        super().close()
        self._life.close()
        self._process.returncode = 0  # so that Popen does not ask for it


def receive(reply: socket.socket) -> tuple[Answer, list[int]]:
    """The answer to ``Inside.asked``."""
    try:
        data, fds = calls.receive_with_fds(reply, BYTES_MAX, _FDS_MAX)
    except ConnectionError:
        data, fds = b"", []
    if not data:
        raise HelperGone("the process inside the tunnel has ended")
    answer = decode(data)
    if not isinstance(answer, Made | Found | Unknown | Failed | Left):
        raise HelperGone("the process inside the tunnel answers with a request")
    return answer, fds


def as_socket(answer: Answer, fds: list[int]) -> socket.socket:
    """Of the answer to MakeSocket. Raises OSError as socket.socket does."""
    if isinstance(answer, Made) and len(fds) == 1:
        return socket.socket(fileno=fds[0])
    if isinstance(answer, Failed):
        raise OSError(answer.os_errno, answer.text)
    raise _error(answer)


def addresses(answer: Answer) -> list[AddressInfo]:
    """Of the answer to LookUp, as socket.getaddrinfo has them. Raises socket.gaierror."""
    if isinstance(answer, Unknown):
        raise socket.gaierror(answer.code, answer.text)
    if not isinstance(answer, Found):
        raise _error(answer)
    return [
        (
            socket.AddressFamily(int(entry[0])),
            socket.SocketKind(int(entry[1])),
            int(entry[2]),
            str(entry[3]),
            tuple(entry[4:]),
        )
        for entry in answer.entries
    ]


def _error(answer: Answer) -> PywgError:
    if isinstance(answer, Failed):
        return refusal.error(answer)
    return PywgError(f"the process inside the tunnel answered {type(answer).__name__}")
