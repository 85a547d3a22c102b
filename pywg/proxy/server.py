"""The proxy itself: listeners, clients, and the limits that keep one from harming the others.

One thread, one event loop. A client that is slow, silent or wrong costs its own connection: each
part of its life has an end, and beyond the limit of connections new ones are refused at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import stat
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from pywg.errors import PywgError
from pywg.proxy import http, socks, web
from pywg.proxy.access import Place
from pywg.proxy.client import Client, Gone, Shared
from pywg.proxy.socks5 import ProtocolError

_BACKLOG = 256
#: Descriptors of one connection: two sockets, a pipe, and the question to the helper; and of all.
FDS_EACH, FDS_SPARE = 5, 64
#: How often silent connections are looked for.
_SWEEP_S = 1.0
_SEND_S = 5.0
_BUSY = http.response(503, "pywg: too many connections\n")

Serve = Callable[[Client], Awaitable[None]]


class Server:
    """Serves from ``open`` on, until ``close``."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._clients: dict[Client, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[tuple[socket.socket, str]] = []
        self.refused = 0
        self._start(self._sweep())

    @property
    def connections(self) -> int:
        return len(self._clients)

    def open(self, place: Place, kind: str) -> list[str]:
        """Listens for clients of "socks5" or "http"; where, in words. Raises PywgError."""
        serve, refusal = (socks.serve, b"") if kind == "socks5" else (web.serve, _BUSY)
        shown = []
        for listener in listen(place):
            path = place.path and str(Path(place.path).absolute())
            self._listeners.append((listener, path))
            self._start(self._accept(listener, serve, refusal))
            name = listener.getsockname()
            shown.append(str(place) if path else str(Place((name[0],), name[1])))
        return shown

    async def close(self) -> None:
        tasks = [*self._tasks, *self._clients.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener, path in self._listeners:
            listener.close()
            if path:
                with contextlib.suppress(OSError):
                    os.unlink(path)  # noqa: PTH108
        self._shared.pipes.close()

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket, serve: Serve, refusal: bytes) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                stream, _ = await loop.sock_accept(listener)
            except OSError:  # no descriptor is free: not at once again
                await asyncio.sleep(0.05)
                continue
            if len(self._clients) >= self._shared.limits.connections:
                self.refused += 1
                with stream, contextlib.suppress(OSError):
                    stream.send(refusal)
                continue
            client = Client(stream, self._shared)
            task = loop.create_task(self._serve(client, serve))
            self._clients[client] = task
            task.add_done_callback(partial(self._gone, client))

    def _gone(self, client: Client, _: object) -> None:
        del self._clients[client]

    async def _serve(self, client: Client, serve: Serve) -> None:
        """Whatever goes wrong with a client ends that client alone."""
        with client.socket, contextlib.suppress(OSError, PywgError, Gone, ProtocolError):
            await serve(client)

    async def _sweep(self) -> None:
        """Ends connections on which nothing has moved for long."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            limit = time.monotonic() - self._shared.limits.idle_s
            for client, task in list(self._clients.items()):
                if client.moved_at < limit:
                    task.cancel()


def listen(place: Place) -> list[socket.socket]:
    """Raises PywgError. Of the two loopback addresses one may be missing."""
    if place.path:
        return [_listen_unix(Path(place.path))]
    found: list[socket.socket] = []
    for host in place.hosts:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            found.append(socket.create_server((host, place.port), family=family, backlog=_BACKLOG))
        except OSError as error:
            if len(place.hosts) > 1 and host != place.hosts[0]:
                continue
            for each in found:
                each.close()
            raise PywgError(f"{place}: cannot listen: {error.strerror}") from None
    for each in found:
        each.setblocking(False)
    return found


def _listen_unix(path: Path) -> socket.socket:
    """For this user alone. What a proxy that was killed has left there is taken away."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_abandoned(path):
            path.unlink()
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise PywgError(f"unix:{path}: cannot listen: {error.strerror}") from None
    listener.setblocking(False)
    return listener


def _is_abandoned(path: Path) -> bool:
    """A socket where nobody listens."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(str(path))
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def connections_at_most(wanted: int) -> int:
    """As many as there are descriptors for; raises this process's own limit as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted * FDS_EACH + FDS_SPARE
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return max(1, min(wanted, (soft - FDS_SPARE) // FDS_EACH))
    return wanted
