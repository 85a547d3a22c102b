"""The process that keeps a tunnel as long as a command is in it.

Apart from the one that the user's shell sees, which is stopped with its command and may have others
that share the tunnel. It talks with each of them over a socket; when the last has gone, however it
ended, so has the tunnel, and whatever its command left behind. A process that is killed has nobody
to clean up after it, so each of the others watches it: see docs/decisions.md.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pywg.config import Config
from pywg.errors import ConfigError, PywgError
from pywg.rootless import calls, privacy, sweep
from pywg.rootless.hosting import Hosted, unanswered
from pywg.rootless.messages import (
    BYTES_MAX,
    AskState,
    Began,
    Begin,
    Broken,
    Kept,
    Leave,
    Loaded,
    Message,
    MessageError,
    Others,
    Ready,
    State,
    decode,
    encode,
)
from pywg.service.supervisor import Tuning, forbid_dumps
from pywg.wireguard.status import InterfaceStatus

_CREDENTIALS = struct.Struct("=iII")  # struct ucred
_FDS_MAX = 4
_CLIENTS_MAX = 64


@dataclass(frozen=True, slots=True)
class Keeping:
    """What to keep: an interface name, how to read its file, and how."""

    name: str
    load: Callable[[], Config]
    tuning: Tuning = field(default_factory=Tuning)
    wait_s: float | None = None
    share: str | None = None


@dataclass(eq=False, slots=True)
class _Client:
    """One that has a command in the tunnel."""

    socket: socket.socket
    namespace: int = -1  # of the command's users

    def clear(self) -> None:
        """Away with what its command has left behind."""
        if self.namespace >= 0:
            sweep.kill_all(self.namespace)
            os.close(self.namespace)


def start(keeping: Keeping) -> tuple[int, socket.socket]:
    """Forks the keeper: its process, and the socket to talk with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child:
        theirs.close()
        return child, ours
    code = 1
    try:
        ours.close()
        code = _main(keeping, theirs)
    finally:
        os._exit(code)


def _main(keeping: Keeping, first: socket.socket) -> int:
    try:
        os.setsid()
        config = keeping.load()
        _harden(first.fileno(), keeping.tuning.log_fd)
        send(first, Loaded())
        message, fds = receive(first)
        if not isinstance(message, Begin):
            return 0  # who started us has changed his mind, or died
        if len(fds) == 2:
            _enter(fds, message.resolv_conf)
        _keep(keeping, config, first)
    except ConfigError as error:
        send(first, Broken(tuple(error.pictures())))
        return 1
    except (PywgError, OSError) as error:
        send(first, Broken((str(error),)))
        return 1
    return 0


def _harden(kept: int, log_fd: int) -> None:
    """No terminal, no core dump, no inherited files; Ctrl-C is for the command."""
    forbid_dumps()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    calls.close_all_but(kept, log_fd)


def _enter(fds: list[int], resolv_conf: str) -> None:
    """Into another tunnel, which then carries this one."""
    for fd, kind in zip(fds, (calls.CLONE_NEWUSER, calls.CLONE_NEWNET), strict=True):
        calls.enter(fd, kind)
        os.close(fd)
    calls.unshare(calls.CLONE_NEWNS)
    privacy.hide_resolvers(resolv_conf)
    calls.set_dumpable(False)  # entering may have taken that back


def _keep(keeping: Keeping, config: Config, first: socket.socket) -> None:
    ended, end = os.pipe()
    listener = _listen(keeping.share) if keeping.share else None
    with Hosted(
        keeping.name, config, keeping.tuning, finished=lambda: _ignore(os.write(end, b"x"))
    ) as tunnel:
        try:
            if keeping.wait_s is not None and not tunnel.wait_for_handshake(
                keeping.wait_s, lambda pause: _has_word(first, pause)
            ):
                raise PywgError(unanswered(config, keeping.wait_s))
            _serve(_Kept(keeping.name, tunnel, listener, ended), first)
        finally:
            sweep.kill_all(tunnel.user_namespace)


def _ignore(written: int) -> None:
    """What a callback answers is nobody's."""


@dataclass(slots=True)
class _Kept:
    name: str
    tunnel: Hosted
    listener: socket.socket | None
    ended: int  # readable when the device has ended
    clients: list[_Client] = field(default_factory=list)


def _serve(kept: _Kept, first: socket.socket) -> None:
    """Until the last command has gone, or device or helper have ended."""
    _welcome(kept, first)
    while kept.clients:
        watched = [client.socket.fileno() for client in kept.clients]
        others = [kept.tunnel.inside.fileno(), kept.ended]
        if kept.listener is not None:
            others.append(kept.listener.fileno())
        ready, _, _ = select.select([*watched, *others], [], [])
        if kept.ended in ready or kept.tunnel.inside.fileno() in ready:
            return
        if kept.listener is not None and kept.listener.fileno() in ready:
            _accept(kept, kept.listener)
        for client in list(kept.clients):
            if client.socket.fileno() in ready:
                _hear(kept, client)


def _welcome(kept: _Kept, stream: socket.socket) -> None:
    tunnel = kept.tunnel
    message = Ready(kept.name, tunnel.resolv_conf, tunnel.notes if not kept.clients else ())
    kept.clients.append(_Client(stream))
    send(
        stream,
        message,
        [tunnel.user_namespace, tunnel.network_namespace, tunnel.inside.requests],
    )


def _hear(kept: _Kept, client: _Client) -> None:
    message, fds = receive(client.socket)
    if isinstance(message, Began) and len(fds) == 1 and client.namespace < 0:
        client.namespace = fds[0]
        return
    if isinstance(message, AskState):
        send(client.socket, _state(kept.tunnel.device.get()))
        return
    kept.clients.remove(client)
    client.clear()
    if isinstance(message, Leave) and not kept.clients:
        kept.tunnel.drain()
        return  # his socket stays open until all is gone: so he knows when
    if isinstance(message, Leave):
        send(client.socket, Others())
    client.socket.close()


def _state(status: InterfaceStatus) -> State:
    shaken = max((peer.last_handshake_ns for peer in status.peers), default=0)
    return State(
        int(time.time() - shaken / 1e9) if shaken else -1,
        sum(peer.tx_bytes for peer in status.peers),
        sum(peer.rx_bytes for peer in status.peers),
        max((peer.persistent_keepalive for peer in status.peers), default=0),
    )


# ---- sharing: an abstract socket, which goes with this process


def address(name: str) -> str:
    """Where the keeper of a shared tunnel of this user listens."""
    return f"\0pywg/{os.geteuid()}/{name}"


def _listen(name: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(address(name))
    except OSError:
        listener.close()
        raise PywgError(
            f"--share {name}: there is one of this name already (join it: leave the file out)"
        ) from None
    listener.listen()
    return listener


def join(name: str) -> socket.socket:
    """The socket to talk with the keeper of a shared tunnel."""
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        stream.connect(address(name))
    except OSError:
        stream.close()
        raise PywgError(
            f"no tunnel is shared as {name} (begin one: pywg exec --share {name} CONFIG -- COMMAND)"
        ) from None
    if peer_of(stream) != os.geteuid():
        stream.close()
        raise PywgError(f"the tunnel that is shared as {name} is another user's")
    return stream


def peer_of(stream: socket.socket) -> int:
    """The user at the other end."""
    raw = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    user: int = _CREDENTIALS.unpack(raw)[1]
    return user


def _accept(kept: _Kept, listener: socket.socket) -> None:
    stream, _ = listener.accept()
    if peer_of(stream) == os.geteuid() and len(kept.clients) < _CLIENTS_MAX:
        _welcome(kept, stream)
    else:
        stream.close()


# ---- messages


def send(stream: socket.socket, message: Kept, fds: list[int] | None = None) -> None:
    """To somebody who may have gone."""
    with contextlib.suppress(OSError):
        socket.send_fds(stream, [encode(message)], fds or [])


def receive(stream: socket.socket) -> tuple[Message | None, list[int]]:
    """None when the other end has gone, or talks nonsense."""
    try:
        data, fds = calls.receive_with_fds(stream, BYTES_MAX, _FDS_MAX)
        return decode(data), fds
    except (OSError, MessageError):
        return None, []


def _has_word(stream: socket.socket, pause_s: float) -> bool:
    """Whether the other end says something, or has gone, within that time."""
    return bool(select.select([stream], [], [], pause_s)[0])
