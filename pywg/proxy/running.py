"""`pywg proxy` from its first listener to its end: by a signal, or with its tunnel."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pywg.errors import PywgError
from pywg.proxy import health
from pywg.proxy.access import Credentials, Place
from pywg.proxy.client import Limits, Shared
from pywg.proxy.server import Server, connections_at_most
from pywg.rootless import keeper
from pywg.rootless.execution import Tunnels
from pywg.rootless.messages import AskState, State

_ASK_S = 5.0
#: It ended because it was told to.
STOPPED = 0
#: It ended because its tunnel did.
LOST = 1

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Proxying:
    """Each place with what is spoken there: "socks5" or "http"."""

    places: tuple[tuple[str, Place], ...]
    credentials: Credentials | None = None
    limits: Limits = field(default_factory=Limits)


def run(tunnels: Tunnels, wanted: Proxying, tell: Tell) -> int:
    """The exit code. Raises PywgError for a place where it cannot listen."""
    return asyncio.run(_run(tunnels, wanted, tell))


async def _run(tunnels: Tunnels, wanted: Proxying, tell: Tell) -> int:
    possible = connections_at_most(wanted.limits.connections)
    if possible < wanted.limits.connections:
        tell(f"{possible} connections at most: this user may not open more files (ulimit -n)")
    watch = _Watch(tunnels)
    with tunnels.requests() as requests:
        shared = Shared(
            requests.asked,
            lambda: watch.health(server),
            wanted.credentials,
            replace(wanted.limits, connections=possible),
        )
        server = Server(shared)
        try:
            for kind, place in wanted.places:
                for shown in server.open(place, kind):
                    tell(f"{kind} at {shown}")
            code = await watch.ended
        finally:
            await server.close()
            watch.close()
    if code == LOST:
        tell("the tunnel has ended, and the proxy with it")
    return code


class _Watch:
    """Signals, and what the keepers of the tunnels say. ``ended`` is the exit code."""

    def __init__(self, tunnels: Tunnels) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._keeper = tunnels.keepers[-1]
        self._sockets = tunnels.watched
        self._asking = asyncio.Lock()
        self._answer: asyncio.Future[State] | None = None
        for each in self._sockets:
            self._loop.add_reader(each, self._heard, each)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                self._loop.add_signal_handler(number, self._end, STOPPED)

    def close(self) -> None:
        for each in self._sockets:
            self._loop.remove_reader(each)

    def _end(self, code: int) -> None:
        if not self.ended.done():
            self.ended.set_result(code)

    def _heard(self, stream: socket.socket) -> None:
        message = keeper.receive(stream)[0]
        if not isinstance(message, State):
            self._loop.remove_reader(stream)
            self._end(LOST)
        elif self._answer is not None and not self._answer.done():
            self._answer.set_result(message)

    async def health(self, server: Server) -> tuple[int, str]:
        """What /healthz is answered. One question at a time."""
        async with self._asking:
            self._answer = self._loop.create_future()
            keeper.send(self._keeper, AskState())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ASK_S):
                    state = await self._answer
                return health.answer(state, server.connections, server.refused)
        raise PywgError("the tunnel does not answer")
