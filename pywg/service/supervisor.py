"""The background process of a tunnel: hosts the device, and nothing else.

``Supervisor`` forks it before it is needed (so that it carries no netlink library), hands it the
options and the UAPI text over a socket pair, and waits for its one answer. Invariant: the
configuration never appears in an argument, an environment variable or a file.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Self

from pywg.native import library
from pywg.service import capabilities, endpoints as watch
from pywg.host import netns
from pywg.tunnel import record as state
from pywg.native.device import Device, LogLevel, Offload
from pywg.errors import PywgError, system_call

_PR_SET_DUMPABLE = 4
_READY = b"ready"
_ENDED = b"ended"


@dataclass(frozen=True, slots=True)
class Hosting:
    """What to host, and how."""

    name: str
    config_text: str = ""
    tun_fd: int = -1
    uapi_fd: int = -1
    offload_disable: int = 0
    threads: int = 1
    realtime: bool = False
    memory_limit: int = 0
    log_level: int = LogLevel.ERROR
    log_fd: int = -1
    # Of endpoints, as watch.Name writes itself; None where nobody tells us.
    names: tuple[list[str | int], ...] | None = None
    netns: str | None = None  # of the sockets; None is where we are

    def __repr__(self) -> str:
        return f"Hosting({self.name!r})"  # the text holds keys


def host(hosting: Hosting, ready: socket.socket | None = None) -> None:
    """Opens the device, says so, and returns when it was stopped, removed or signalled to end."""
    # Blocked before the thread starts, which inherits it: so a signal waits for sigwait below.
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup leaves it
        signals.add(signal.SIGHUP)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        device = Device(
            hosting.name,
            hosting.config_text or None,
            tun_fd=hosting.tun_fd,
            uapi_fd=hosting.uapi_fd,
            offload_disable=Offload(hosting.offload_disable),
            threads=hosting.threads,
            realtime=hosting.realtime,
            memory_limit=hosting.memory_limit,
            log_level=LogLevel(hosting.log_level),
            log_fd=hosting.log_fd,
        )
        watcher = _watcher(device, hosting)
        if os.environ.get("PYWG_NO_SANDBOX") != "1":
            capabilities.keep_only()  # before there are threads: each has its own
        try:
            device.start(finished=lambda: os.kill(os.getpid(), signal.SIGUSR1))
            watcher.start()
            if ready is not None:
                ready.sendall(_READY)
            if signal.sigwait(signals) == signal.SIGUSR1:
                device.wait()
        finally:
            watcher.stop()
            device.close()
        if ready is not None:
            with contextlib.suppress(OSError):  # nobody waits for it but `up --foreground`
                ready.sendall(_ENDED)
    finally:
        # What still waits, such as the SIGUSR1 of a device that was told to stop, would kill us.
        while signal.sigtimedwait(signals, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watcher(device: Device, hosting: Hosting) -> watch.Watcher:
    if hosting.names is None:
        return watch.Watcher(device, ())
    names = [watch.Name.from_json(name) for name in hosting.names]
    recorded = hosting.names

    def renewed() -> list[watch.Name] | None:
        """What `pywg reload` has written down."""
        nonlocal recorded
        record = state.read(hosting.name)
        if record is None or list(record.names) == list(recorded):
            return None
        recorded = record.names
        return [watch.Name.from_json(name) for name in recorded]

    return watch.Watcher(device, names, renewed=renewed, log=_log_to(hosting))


def _log_to(hosting: Hosting) -> Callable[[str], None]:
    """Beside what the core logs; nowhere unless it is verbose."""

    def log(line: str) -> None:
        if hosting.log_fd >= 0 and hosting.log_level >= LogLevel.VERBOSE:
            with contextlib.suppress(OSError):
                os.write(hosting.log_fd, f"pywg: {hosting.name}: {line}\n".encode())

    return log


class Supervisor:
    """A process that waits for its Hosting. It ends by itself if it never gets one."""

    def __init__(self, keep_fds: Iterable[int] = ()) -> None:
        # Loaded here: the child leaves the folder that a relative PYWG_CORE counts from.
        library.load()
        try:
            self._socket, theirs = socket.socketpair()
            child = os.fork()
        except OSError as error:
            raise system_call(error, "cannot start the background process") from None
        if child == 0:
            self._socket.close()
            _detach(theirs, {theirs.fileno(), *keep_fds})
        theirs.close()
        os.waitpid(child, 0)  # the first of two forks ends at once

    def start(self, hosting: Hosting) -> None:
        """Returns when interface and UAPI socket exist; raises the line the process left."""
        with contextlib.suppress(OSError):  # it is gone: no answer will come either
            self._socket.sendall(json.dumps(asdict(hosting)).encode("utf-8"))
            self._socket.shutdown(socket.SHUT_WR)
        answer = bytearray()
        while answer != _READY and (chunk := _receive(self._socket)):
            answer += chunk
        if answer != _READY:
            message = answer.decode("utf-8", errors="replace")
            raise PywgError(message or f"{hosting.name}: the background process ended at once")

    def fileno(self) -> int:
        """Readable when the process that was started has ended."""
        return self._socket.fileno()

    def ended_well(self) -> bool:
        """Waits for its end, and says whether that was the end of the interface or of a crash."""
        return _read_all(self._socket) == _ENDED

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _detach(control: socket.socket, keep: set[int]) -> None:
    """The child: leaves the session, forks once more and serves. Does not return."""
    code = 1
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        _harden(keep)
        code = _serve(control)
    finally:
        os._exit(code)


def _serve(control: socket.socket) -> int:
    request = _read_all(control)
    if not request:
        return 0  # the parent changed its mind, or died
    hosting = Hosting(**json.loads(request))
    try:
        if hosting.netns is not None:
            netns.enter(hosting.netns)
        host(hosting, control)
    except PywgError as error:
        with contextlib.suppress(OSError):
            control.sendall(str(error).encode("utf-8"))
        return 1
    return 0


def _harden(keep: set[int]) -> None:
    """No terminal, no core dump, no debugger, no inherited files but those asked for."""
    forbid_dumps()
    os.umask(0o077)
    os.chdir("/")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        if fd not in keep:
            os.dup2(null, fd)
    last = 2
    for fd in sorted(keep | {1 << 20}):
        if fd > last:
            os.closerange(last + 1, fd)
            last = fd


def forbid_dumps() -> None:
    """Keys must not end in a core file, nor be read by another process of the same user."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read_all(stream: socket.socket) -> bytes:
    data = bytearray()
    while chunk := _receive(stream):
        data += chunk
    return bytes(data)


def _receive(stream: socket.socket) -> bytes:
    """Nothing when the other end has gone."""
    try:
        return stream.recv(1 << 16)
    except ConnectionResetError:
        return b""
