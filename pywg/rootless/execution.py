"""`pywg exec`: tunnels, one inside the other, and a command in the innermost.

Nothing is left when it returns: tunnels end with their keepers, and these with their last command.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

from pywg.errors import PywgError
from pywg.rootless import forwarding, keeper
from pywg.rootless.command import Command, Place
from pywg.rootless.forward import Forward
from pywg.rootless.inside import Requests
from pywg.rootless.keeper import Keeping
from pywg.rootless.messages import Began, Begin, Broken, Leave, Loaded, Message, Others, Ready

#: A tunnel that does not end by itself within that time is ended.
_LEAVE_S = 10.0

Tell = Callable[[str], None]


class NoTunnel(PywgError):
    """A tunnel could not be had; ``lines`` say why."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


@dataclass(slots=True)
class _Held:
    """Our end of a keeper; ``pid`` is 0 for one that somebody else has started."""

    socket: socket.socket
    pid: int = 0

    def expect(self, wanted: type[Message]) -> tuple[Message, list[int]]:
        message, fds = keeper.receive(self.socket)
        if isinstance(message, Broken):
            raise NoTunnel(message.lines)
        if not isinstance(message, wanted):
            raise NoTunnel(("the process that keeps the tunnel has ended",))
        return message, fds


@dataclass(slots=True)
class Tunnels:
    """Those that a command goes through, the outermost first. Gone after ``close``."""

    held: list[_Held] = field(default_factory=list)
    name: str = ""
    place: Place | None = None
    _requests: socket.socket | None = None
    _forwarder: forwarding.Forwarder | None = None

    def open(self, keepings: Sequence[Keeping], tell: Tell) -> None:
        """Raises NoTunnel. All files are read before any tunnel is made."""
        for keeping in keepings:
            pid, stream = keeper.start(keeping)
            self.held.append(_Held(stream, pid))
        for held in self.held:
            held.expect(Loaded)
        for held in self.held:
            outer = self.place
            fds = [] if outer is None else [outer.user_namespace, outer.network_namespace]
            begin = Begin("" if outer is None else outer.resolv_conf)
            keeper.send(held.socket, begin, fds)
            self._take(held, tell)

    def join(self, name: str, tell: Tell) -> None:
        """One that somebody else has begun."""
        held = _Held(keeper.join(name))
        self.held.append(held)
        self._take(held, tell)

    def _take(self, held: _Held, tell: Tell) -> None:
        ready, fds = held.expect(Ready)
        if not isinstance(ready, Ready) or len(fds) != 3:
            raise NoTunnel(("the process that keeps the tunnel talks nonsense",))
        for note in ready.notes:
            tell(note)
        self._close_place()
        self.name, self.place = ready.name, Place(fds[0], fds[1], ready.resolv_conf)
        self._requests = socket.socket(fileno=fds[2])

    def _close_place(self) -> None:
        if self.place is not None:
            os.close(self.place.user_namespace)
            os.close(self.place.network_namespace)
            self.place = None
        if self._requests is not None:
            self._requests.close()
            self._requests = None

    def forward(self, forwards: Sequence[Forward]) -> None:
        """From now on, until ``close``. Raises PywgError for a port that cannot be had."""
        if forwards and self._requests is not None:
            self._forwarder = forwarding.start(forwards, self._requests)

    @property
    def keepers(self) -> list[socket.socket]:
        """Where each is asked; readable when it has ended, too."""
        return [held.socket for held in self.held]

    @property
    def watched(self) -> list[socket.socket]:
        """Readable when a tunnel, or what carries its ports, has ended."""
        forwarder = [] if self._forwarder is None else [self._forwarder.socket]
        return [*self.keepers, *forwarder]

    def requests(self) -> Requests:
        """By which sockets are made and names looked up in the innermost."""
        assert self._requests is not None  # noqa: S101 - it is open
        return Requests(self._requests.dup())

    def run(self, argv: Sequence[str], tell: Tell) -> int:
        """The command's exit code."""
        assert self.place is not None  # noqa: S101 - it is open
        command = Command(self.place, argv)
        try:
            if command.namespace >= 0:
                for held in self.held:
                    keeper.send(held.socket, Began(), [command.namespace])
            watched = self.watched
            code = command.wait(watched)
            if command.failure is not None:
                code, text = command.failure
                tell(text)
            elif any(map(_has_ended, watched)):
                tell("the tunnel has ended, and its command with it")
            return code
        finally:
            command.close()

    def close(self) -> None:
        """The innermost first; waits until each is gone, unless others use it."""
        if self._forwarder is not None:
            self._forwarder.close()
        self._close_place()
        for held in reversed(self.held):
            keeper.send(held.socket, Leave())
            self._await(held)
        self.held.clear()

    def _await(self, held: _Held) -> None:
        limit = time.monotonic() + _LEAVE_S
        ready, _, _ = select.select([held.socket], [], [], _LEAVE_S)
        message = keeper.receive(held.socket)[0] if ready else None
        held.socket.close()
        if held.pid == 0 or isinstance(message, Others):
            return
        while os.waitpid(held.pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > limit:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(held.pid, signal.SIGKILL)
            time.sleep(0.002)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _has_ended(stream: socket.socket) -> bool:
    return bool(select.select([stream], [], [], 0)[0])
