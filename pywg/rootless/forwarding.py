"""The process that carries `-L` and `-R`: sockets on both sides of a tunnel, and what goes between.

One thread, one event loop. It stays outside, and has its sockets inside made by the helper. It ends
with the process that started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from pywg.errors import PywgError
from pywg.host import resolver
from pywg.rootless import calls
from pywg.rootless.forward import Forward
from pywg.rootless.inside import Requests, addresses
from pywg.rootless.messages import BYTES_MAX, LookUp, decode
from pywg.rootless.relay import Pipes, Relay

#: Connections, and UDP flows of each port: more than that wait, or take the place of the oldest.
CONNECTIONS_MAX = 512
FLOWS_MAX = 256
#: A UDP flow that says nothing for so long is forgotten.
FLOW_IDLE_S = 180.0
CONNECT_S = 10.0
_DATAGRAM = 1 << 16
_BACKLOG = 128
_READY = b"ready"
_NO_SUCH_ADDRESS = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

Address = tuple[int | str, ...]


class Forwarder:
    """The process, once all its ports are open."""

    def __init__(self, pid: int, stream: socket.socket) -> None:
        self._pid = pid
        #: Readable when it has ended.
        self.socket = stream

    def close(self) -> None:
        self.socket.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def start(forwards: Sequence[Forward], requests: socket.socket) -> Forwarder:
    """Raises PywgError for a port that cannot be had."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _main(forwards, requests, theirs, parent)
    theirs.close()
    forwarder = Forwarder(pid, ours)
    answer = ours.recv(4096)
    if answer != _READY:
        forwarder.close()
        raise PywgError(answer.decode("utf-8", "replace") or "the process of -L and -R ended")
    return forwarder


def _main(
    forwards: Sequence[Forward], requests: socket.socket, ready: socket.socket, parent: int
) -> NoReturn:
    try:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a terminal's: they are for the command
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        calls.close_all_but(requests.fileno(), ready.fileno())
        calls.die_with_parent(parent)
        asyncio.run(_carry(forwards, Requests(requests), ready))
    except OSError as error:
        with contextlib.suppress(OSError):
            ready.send(f"{error.strerror or error}".encode())
    finally:
        os._exit(1)


async def _carry(forwards: Sequence[Forward], requests: Requests, ready: socket.socket) -> NoReturn:
    carrier = _Carrier(requests)
    for forward in forwards:
        carrier.open(forward)
    ready.send(_READY)
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


@dataclass(eq=False, slots=True)
class _Flow:
    """Of one sender of datagrams: the socket that stands for it on the other side."""

    socket: socket.socket
    heard: float


class _Carrier:
    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._loop = asyncio.get_running_loop()
        self._places = asyncio.Semaphore(CONNECTIONS_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._pipes = Pipes()

    def open(self, forward: Forward) -> None:
        """Listens at each address that there is; raises OSError if there is none."""
        listeners = [
            listener
            for bind in forward.binds
            if (listener := self._listener(forward, bind, must=len(forward.binds) == 1))
        ]
        if not listeners:
            raise OSError(0, f"{forward}: no address to listen at")
        for listener in listeners:
            serve = self._accept if forward.kind == "tcp" else self._relay
            self._start(serve(forward, listener))

    def _listener(self, forward: Forward, bind: str, *, must: bool) -> socket.socket | None:
        """Of the default addresses one may be missing, as ::1 on a host without IPv6."""
        family = socket.AF_INET6 if ":" in bind else socket.AF_INET
        kind = socket.SOCK_STREAM if forward.kind == "tcp" else socket.SOCK_DGRAM
        try:
            made = self._make(family, kind, inside=forward.is_reverse)
        except OSError:
            if must:
                raise
            return None
        try:
            made.setblocking(False)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if forward.kind == "tcp":
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((bind, forward.port))
            if forward.kind == "tcp":
                made.listen(_BACKLOG)
        except OSError as error:
            made.close()
            if not must and error.errno in _NO_SUCH_ADDRESS:
                return None
            raise OSError(error.errno, f"{forward}: {bind}: {error.strerror}") from None
        return made

    def _make(self, family: int, kind: int, *, inside: bool) -> socket.socket:
        return self._requests.make_socket(family, kind) if inside else socket.socket(family, kind)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- streams

    async def _accept(self, forward: Forward, listener: socket.socket) -> None:
        while True:
            await self._places.acquire()
            try:
                stream, _ = await self._loop.sock_accept(listener)
            except OSError:  # no descriptor is free: not at once again
                self._places.release()
                await asyncio.sleep(0.1)
                continue
            self._start(self._join(forward, stream))

    async def _join(self, forward: Forward, stream: socket.socket) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._places.release)
            stack.enter_context(stream)
            with contextlib.suppress(OSError, PywgError, TimeoutError):
                other = stack.enter_context(await self._connect(forward, socket.SOCK_STREAM))
                stream.setblocking(False)
                for each in (stream, other):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await Relay(self._pipes, stream, other).run()

    async def _connect(self, forward: Forward, kind: int) -> socket.socket:
        """The first address that takes it."""
        failure: OSError = OSError(0, "no address")
        for family, address in await self._addresses(forward, kind):
            made = self._make(family, kind, inside=not forward.is_reverse)
            made.setblocking(False)
            try:
                async with asyncio.timeout(CONNECT_S):
                    await self._loop.sock_connect(made, address)
            except OSError as error:
                made.close()
                failure = error
            else:
                return made
        raise failure

    async def _addresses(self, forward: Forward, kind: int) -> list[tuple[int, Address]]:
        host, port = forward.host, str(forward.host_port)
        if forward.is_reverse:
            ask = partial(resolver.entries, host, port, 0, kind, protocol=0, flags=0)
            found = await self._loop.run_in_executor(None, ask)
            return [(int(entry[0]), tuple(entry[4:])) for entry in found]
        with self._requests.asked(LookUp(host, port, 0, kind, 0, 0)) as reply:
            reply.setblocking(False)
            answer = decode(await self._loop.sock_recv(reply, BYTES_MAX))
        return [(entry[0], entry[4]) for entry in addresses(answer)]  # type: ignore[arg-type]

    # ---- datagrams

    async def _relay(self, forward: Forward, listener: socket.socket) -> None:
        """A socket on the other side for each sender here; answers go back to him."""
        flows: OrderedDict[Address, _Flow] = OrderedDict()
        while True:
            try:
                data, sender = await self._loop.sock_recvfrom(listener, _DATAGRAM)
            except OSError:  # an answer to what was sent before: it concerns one sender
                continue
            self._forget(flows)
            flow = flows.get(sender)
            if flow is None:
                try:
                    other = await self._connect(forward, socket.SOCK_DGRAM)
                except (OSError, PywgError):
                    continue
                flow = flows[sender] = _Flow(other, 0)
                answer = partial(_answer, listener, sender, other)
                self._loop.add_reader(other, answer)
            flow.heard = self._loop.time()
            flows.move_to_end(sender)
            with contextlib.suppress(OSError):
                flow.socket.send(data)

    def _forget(self, flows: OrderedDict[Address, _Flow]) -> None:
        """Before another comes; those heard of longest ago stand first."""
        for _ in range(overdue([flow.heard for flow in flows.values()], self._loop.time())):
            _, flow = flows.popitem(last=False)
            self._loop.remove_reader(flow.socket)
            flow.socket.close()


def overdue(heard: Sequence[float], now: float) -> int:
    """How many flows are forgotten: those that are silent for long, and the longest silent ones
    where there is no room for one more."""
    silent = sum(each <= now - FLOW_IDLE_S for each in heard)
    return max(silent, len(heard) - FLOWS_MAX + 1)


def _answer(listener: socket.socket, sender: Address, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        listener.sendto(other.recv(_DATAGRAM), sender)
