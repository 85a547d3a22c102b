"""A tunnel as a value in a program: sockets inside it, without root and without touching the host.

A Hosted tunnel with what a program expects of something it holds: it is closed when it is dropped
or when the program exits, is of no use in a forked child, and may be used by any thread.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import socket
import ssl as tls
import threading
import warnings
import weakref
from typing import Any, NoReturn, Self

from pywg.config import Config
from pywg.errors import PywgError
from pywg.native.device import Device, default_threads
from pywg.rootless import dialing, hosting
from pywg.rootless.hosting import Hosted
from pywg.rootless.inside import AddressInfo, TunnelClosed, addresses, as_socket, receive
from pywg.rootless.messages import Answer, LookUp, MakeSocket, Request
from pywg.rootless.sockets import TunnelSocket, is_numeric
from pywg.service.supervisor import Tuning

#: The interface inside. Its namespace is its own, so the name meets no other.
INTERFACE = "wg0"
#: What was sent before the tunnel is closed has so long to arrive.
DRAIN_S = 0.5
_FLAGS = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_Socket = socket.socket  # in the class, its method has that name
_open: weakref.WeakSet[Tunnel] = weakref.WeakSet()


class NoHandshake(PywgError, TimeoutError):
    """No peer has answered in time."""


class Tunnel:
    """A WireGuard tunnel of this process alone, in a network namespace of its own.

    ``with pywg.Tunnel("work.conf") as tunnel:`` makes it, and removes it after the block. It needs
    no root, and changes nothing on the host: other programs neither see nor use it. Its sockets are
    the kernel's, made inside; nothing but the tunnel leads out of there.

    ``config`` is a file's path, or a Config. With ``wait`` the constructor returns when a peer has
    answered, and raises NoHandshake if none has within so many seconds; without it, the first
    packet brings the handshake. ``threads`` is how many cores it may use.

    Raises ConfigError for a file with mistakes, or an endpoint's name without an address, and
    ``pywg.rootless.refusal.Refused`` where this host does not allow namespaces or a TUN to an
    ordinary user: its text has the line that mends it.

    Any thread may use it, and several at the same time. In a forked child each method raises
    TunnelClosed; sockets that were made before may be used there. It cannot be copied or pickled.
    """

    def __init__(
        self,
        config: Config | str | os.PathLike[str],
        *,
        wait: float | None = None,
        threads: int | None = None,
    ) -> None:
        self._hosted: Hosted | None = None
        self._closed_because = "the tunnel is closed"
        self._closing = threading.RLock()
        loaded = config if isinstance(config, Config) else Config.load(os.fspath(config))
        hosted = Hosted(INTERFACE, loaded, Tuning(threads=threads or default_threads()))
        self._hosted, self._pid = hosted, os.getpid()
        _open.add(self)
        if wait is not None and not hosted.wait_for_handshake(wait):
            self.close()
            raise NoHandshake(hosting.unanswered(loaded, wait))

    @property
    def device(self) -> Device:
        """The WireGuard device: ``device.get()`` has peers, handshakes and counters."""
        return self._running().device

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the file is not used without root, in sentences."""
        return self._running().notes

    # ---- sockets

    def socket(
        self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0
    ) -> TunnelSocket:
        """A new socket inside, as ``socket.socket(family, type, proto)`` makes one: TCP or UDP over
        IPv4 or IPv6, or SOCK_RAW. ``type`` may have SOCK_NONBLOCK. Raises OSError as
        ``socket.socket`` does, and TunnelClosed."""
        wanted = MakeSocket(int(family), int(type) & ~_FLAGS, int(proto))
        made = self._wrapped(as_socket(*self._ask(wanted)))
        if type & socket.SOCK_NONBLOCK:
            made.setblocking(False)
        return made

    def create_connection(
        self,
        address: tuple[str, int],
        timeout: float | None = None,
        source_address: tuple[str, int] | None = None,
    ) -> TunnelSocket:
        """A TCP connection to (host, port), as ``socket.create_connection``: a name is looked up in
        the tunnel, and its addresses are tried in turn, each for ``timeout`` seconds. Raises
        OSError (ConnectionRefusedError, TimeoutError, socket.gaierror) and TunnelClosed."""
        host, port = address
        last: OSError | None = None
        numeric = is_numeric(host) and isinstance(port, int)
        entries = (
            [dialing.numeric_entry(host, port)]
            if numeric
            else self.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
        )
        for family, kind, proto, _, target in entries:
            stream = self.socket(family, kind, proto)
            try:
                stream.settimeout(timeout)
                if source_address is not None:
                    stream.bind(source_address)
                stream.connect(target)
                return stream
            except OSError as error:
                stream.close()
                last = error
            except BaseException:
                stream.close()
                raise
        raise last or OSError(f"{host}: no address")

    async def open_connection(
        self,
        host: str,
        port: int,
        *,
        ssl: tls.SSLContext | bool | None = None,
        server_hostname: str | None = None,
        **options: Any,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """As ``asyncio.open_connection``: a stream reader and writer of a TCP connection inside,
        with TLS over it if ``ssl`` is a context or True. Looks the name up in the tunnel without
        blocking the event loop. Limit its time by ``asyncio.timeout``. Raises as
        ``create_connection`` does, and ssl.SSLError."""
        stream = self._wrapped(await dialing.connect(self._asked, host, port))
        if ssl and server_hostname is None:
            server_hostname = host
        try:
            return await asyncio.open_connection(
                sock=stream, ssl=ssl or None, server_hostname=server_hostname, **options
            )
        except BaseException:
            stream.close()
            raise

    def listen(
        self, address: tuple[str, int], backlog: int = 128, *, family: int | None = None
    ) -> TunnelSocket:
        """A TCP socket inside that listens at (host, port): host is one of the tunnel's addresses,
        or "" for all of one family: IPv4, or IPv6 with ``family=socket.AF_INET6``. For
        ``accept()``, or ``asyncio.start_server(..., sock=...)``. Ports below 1024 need no root.
        Raises OSError as ``bind`` and ``listen`` do, and TunnelClosed."""
        if family is None:
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        listener = self.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(backlog)
        except BaseException:
            listener.close()
            raise
        return listener

    def getaddrinfo(  # noqa: PLR0917 - as socket.getaddrinfo
        self,
        host: str | None,
        port: int | str | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[AddressInfo]:
        """As ``socket.getaddrinfo``, by the name servers in the file's ``DNS`` and /etc/hosts: the
        host's are never asked. Raises socket.gaierror, and TunnelClosed."""
        text = "" if port is None else str(port)
        wanted = LookUp(host, text, int(family), int(type), int(proto), int(flags))
        return addresses(self._ask(wanted)[0])

    # ---- life

    def close(self) -> None:
        """Removes the tunnel, its interface and its process, and zeroes the keys. Harmless a second
        time. Sockets that are still open stay so, but reach nobody any more."""
        with self._closing:
            hosted, self._hosted = self._hosted, None
        _open.discard(self)
        if hosted is not None:
            hosted.drain(DRAIN_S)
            hosted.close()

    def __enter__(self) -> Self:
        self._running()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        hosted = getattr(self, "_hosted", None)
        if hosted is None or self._pid != os.getpid():
            return
        self._hosted = None
        warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        # The collector may have come in the middle of anything, with a lock of the device held.
        with contextlib.suppress(RuntimeError):  # no thread any more: the process ends
            threading.Thread(target=hosted.close, daemon=True).start()

    def __repr__(self) -> str:
        return f"<pywg.Tunnel {'closed' if self._hosted is None else 'open'}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a pywg.Tunnel cannot be copied or pickled: open another one")

    def _leave_to_parent(self) -> None:
        """In a forked child: nothing of it may keep the parent's tunnel alive."""
        self._closing = threading.RLock()
        hosted, self._hosted = self._hosted, None
        self._closed_because = "the tunnel belongs to the process that made it"
        if hosted is not None:
            hosted.forget()

    # ---- inside

    def _running(self) -> Hosted:
        if self._hosted is None:
            raise TunnelClosed(f"{self._closed_because} (make a new one: pywg.Tunnel(config))")
        return self._hosted

    def _ask(self, request: Request) -> tuple[Answer, list[int]]:
        with self._asked(request) as reply:
            return receive(reply)

    def _asked(self, request: Request) -> _Socket:
        with self._closing:
            return self._running().inside.asked(request)

    def _wrapped(self, made: _Socket) -> TunnelSocket:
        timeout = made.gettimeout()
        wrapped = TunnelSocket(fileno=made.detach(), look_up=_by(weakref.ref(self)))
        wrapped.settimeout(timeout)
        return wrapped


def _by(tunnel: weakref.ref[Tunnel]) -> Any:
    """How a socket looks names up: it does not keep its tunnel open."""

    def look_up(host: str, port: Any, family: int, kind: int, proto: int) -> list[AddressInfo]:
        held = tunnel()
        if held is None:
            raise TunnelClosed("the tunnel of this socket is closed, so it looks no name up")
        return held.getaddrinfo(host, port, family, kind, proto)

    return look_up


def _close_all() -> None:
    for tunnel in list(_open):
        tunnel.close()


def _after_fork_in_child() -> None:
    for tunnel in list(_open):
        tunnel._leave_to_parent()
    _open.clear()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_after_fork_in_child)
