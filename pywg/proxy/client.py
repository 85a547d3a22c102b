"""A client's connection, what it wrote and is not read yet, and what all clients share."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from pywg.proxy.access import Credentials
from pywg.rootless import dialing
from pywg.rootless.dialing import Asked
from pywg.rootless.relay import Pipes, Relay

_CHUNK = 4096
_Value = TypeVar("_Value")


class Gone(Exception):
    """The client has closed its connection, or says what nobody understands."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections there may be, and how long one may take for each part of its life, in
    seconds: its first words, the connection inside, and silence."""

    connections: int = 1024
    first_words_s: float = 15.0
    connect_s: float = 30.0
    idle_s: float = 3600.0


@dataclass(slots=True)
class Shared:
    """What all clients of a proxy share. ``asked`` is the way to the helper inside; ``health`` is
    told to who asks for /healthz: a status of HTTP, and a JSON object."""

    asked: Asked
    health: Callable[[], Awaitable[tuple[int, str]]]
    credentials: Credentials | None = None
    limits: Limits = field(default_factory=Limits)
    pipes: Pipes = field(default_factory=Pipes)


class Client:
    """One connection. ``moved_at`` is when something was last moved for it, by the monotonic
    clock."""

    def __init__(self, sock: socket.socket, shared: Shared) -> None:
        self.socket = sock
        self.shared = shared
        self._pending = b""
        self._relay: Relay | None = None
        self._moved_at = time.monotonic()

    @property
    def moved_at(self) -> float:
        return self._moved_at if self._relay is None else self._relay.moved_at

    def moved(self) -> None:
        self._moved_at = time.monotonic()

    async def read(self, parse: Callable[[bytes], tuple[_Value, int] | None]) -> _Value:
        """The next message, by a parser that says when it is whole, and limits it. Raises Gone, and
        what the parser raises."""
        while (found := parse(self._pending)) is None:
            self._pending += await self._more()
        value, length = found
        self._pending = self._pending[length:]
        return value

    async def some(self) -> bytes:
        """Whatever comes next."""
        data, self._pending = self._pending, b""
        return data or await self._more()

    async def _more(self) -> bytes:
        data = await asyncio.get_running_loop().sock_recv(self.socket, _CHUNK)
        if not data:
            raise Gone
        return data

    def unread(self, limit: int | None = None) -> bytes:
        """What has come already and is not read, so many bytes at most."""
        data = self._pending if limit is None else self._pending[:limit]
        self._pending = self._pending[len(data) :]
        return data

    async def write(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def connect(self, host: str, port: int) -> socket.socket:
        """Inside. Raises OSError."""
        limit = self.shared.limits.connect_s
        try:
            async with asyncio.timeout(limit):
                return await dialing.connect(self.shared.asked, host, port, each_s=limit / 3)
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, "no answer in time") from None

    async def join(self, other: socket.socket, limit: int | None = None) -> None:
        """To the end of both ways; what was read too early goes first."""
        for each in (self.socket, other):
            settle(each)
        self._relay = Relay(self.shared.pipes, self.socket, other, limit=limit)
        early = self.unread()
        if early:
            await asyncio.get_running_loop().sock_sendall(other, early)
        await self._relay.run()


def settle(stream: socket.socket) -> None:
    """Small messages go at once, and a peer that has vanished is noticed in the end."""
    with contextlib.suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if stream.family != socket.AF_UNIX:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
