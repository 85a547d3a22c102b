"""The background process of a tunnel: hosts the device, and nothing else.

``Supervisor`` forks it before it is needed (so that it carries no netlink library), hands it the
options over a socket pair, and waits for its one answer. Keys come later, by UAPI. Knows what it is
given: what a tunnel consists of, and what was recorded of it, is for those who call it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import Enum, auto
from pathlib import Path
from typing import Any, Self

from pywg.config import Endpoint, Family
from pywg.errors import PywgError, system_call
from pywg.host import netns, resolver
from pywg.host.descriptors import close_others
from pywg.host.outside import Outside
from pywg.native import library
from pywg.native.device import Device, default_threads
from pywg.native.options import LogLevel, Offload
from pywg.service import capabilities, endpoints
from pywg.service.announcer import Announcer
from pywg.service.log import LogFormat, Relay, Writer
from pywg.service.source_port import SourcePort

_PR_SET_DUMPABLE = 4
_READY = b"ready"
_ENDED = b"ended"
_HANDED_OVER = b"handed over"
#: What a companion has to come to its end, in seconds, when the device has ended.
COMPANION_S = 10.0


# Names of endpoints, as endpoints.Name writes itself.
Names = tuple[list[str | int], ...]
# Asked again and again: the names as they are by now, or None while they are the same.
Renewed = Callable[[], Names | None]
Log = Callable[[str], None]
# Runs beside the device in a thread of its own, with all capabilities until it gives them up, and
# ends soon after it. Is given where to log, and what to call when the network around has changed.
Companion = Callable[[Log, Callable[[], None]], None]
# Runs in a process of its own, forked before there are keys, threads and blocked signals, with all
# capabilities. Reads events, lines of JSON, until the other end of the socket is closed.
Listener = Callable[[socket.socket, Log], None]
# The same, which hears of no event: only the end of the tunnel.
Follower = Listener


@dataclass(frozen=True, slots=True)
class Beside:
    """What runs beside the device, in the process that hosts it or apart from it."""

    renewed: Renewed | None = None
    companion: Companion | None = None
    listener: Listener | None = None
    follower: Follower | None = None


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a device runs: each field is an argument of ``Device``, the memory limit in bytes; but
    ``log_format``, which is how lines of the log are written."""

    offload_disable: int = 0
    threads: int = field(default_factory=default_threads)
    realtime: bool = False
    memory_limit: int = 0
    log_level: int = LogLevel.ERROR
    log_fd: int = -1
    log_format: LogFormat = "text"


@dataclass(frozen=True, slots=True)
class Hosting:
    """What to host, and how. It goes to the hosting process as JSON."""

    name: str
    tuning: Tuning = field(default_factory=Tuning)
    tun_fd: int = -1
    uapi_fd: int = -1
    names: Names = ()
    netns: str | None = None  # of the sockets; None is where we are
    outside: Outside | None = None  # how names are asked for; None is the C library
    port_is_free: bool = False  # nobody asked for this one
    events: str | None = None  # the path of the socket that tells what happens
    take_over: bool = False  # from the process that hosts it now

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode("utf-8")

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        return cls.from_values(json.loads(text))

    @classmethod
    def from_values(cls, given: Mapping[str, Any]) -> Self:
        """From what ``to_json`` of this version or another one wrote: what is not known here is
        passed by. Raises KeyError, TypeError or ValueError for what is none."""
        values = _known(cls, given)
        values["tuning"] = Tuning(**_known(Tuning, given["tuning"]))
        values["names"] = tuple(values.get("names", ()))
        if values.get("outside") is not None:
            values["outside"] = Outside.from_json(values["outside"])
        return cls(**values)


def _known(cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(cls)}
    return {name: value for name, value in dict(given).items() if name in names}


class End(Enum):
    """How a process that hosts a tunnel came to its end."""

    WELL = auto()  # with the interface, or since it was told to
    HANDED_OVER = auto()  # another process hosts the tunnel now
    CRASHED = auto()


def host(
    hosting: Hosting,
    ready: socket.socket | None = None,
    renewed: Renewed | None = None,
    companion: Companion | None = None,
    listener: socket.socket | None = None,
) -> None:
    """Opens the device, says so, and returns when it was stopped, removed, handed over to another
    process or signalled to end.

    ``renewed`` tells of names that a reload has changed; without it nobody changes them. What
    happens is told to ``listener``.
    """
    # Blocked before the thread starts, which inherits it: so a signal waits for sigwait below.
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup leaves it
        signals.add(signal.SIGHUP)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    relay = _relay(hosting)
    beside = _Beside(companion, _log_to(hosting, LogLevel.ERROR))
    try:
        if hosting.take_over:  # once it is open, packets wait for its threads
            capabilities.keep_only()
        device = _open(hosting, relay)
        announcer = _announcer(device, hosting, listener)
        watcher = _watcher(device, hosting, renewed)
        if not hosting.take_over:  # to make an interface may take more
            capabilities.keep_only()  # before there are threads: each has its own
        try:
            device.start(finished=lambda: os.kill(os.getpid(), signal.SIGUSR1))
            if relay is not None:
                relay.start()
            beside.begin(watcher.moved)
            watcher.start()
            if announcer is not None:
                announcer.start()
            # Who has taken a tunnel over keeps it, even if nobody waits for the answer.
            _answer(ready, _READY, must_arrive=not hosting.take_over)
            _await_end(device, hosting, signals)
        finally:
            watcher.stop()
            if announcer is not None:
                announcer.stop(handed_over=device.was_handed_over)
            device.close()
            # A companion of a tunnel that goes on elsewhere ends with this process.
            if not device.was_handed_over:
                beside.join(COMPANION_S)
        # Nobody waits for it but `up --foreground`.
        _answer(ready, _HANDED_OVER if device.was_handed_over else _ENDED, must_arrive=False)
    finally:
        beside.forget()
        if relay is not None:
            relay.close()
        # What still waits, such as the SIGUSR1 of a device that was told to stop, would kill us.
        while signal.sigtimedwait(signals, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _answer(ready: socket.socket | None, word: bytes, *, must_arrive: bool) -> None:
    try:
        if ready is not None:
            ready.sendall(word)
    except OSError:
        if must_arrive:
            raise


def _await_end(device: Device, hosting: Hosting, signals: set[signal.Signals]) -> None:
    number = signal.sigwait(signals)
    if number == signal.SIGUSR1:
        device.wait()
        if device.was_handed_over:
            _log_to(hosting, LogLevel.VERBOSE)("handed over to another process: ending")
    else:
        _log_to(hosting, LogLevel.VERBOSE)(f"{signal.Signals(number).name}: ending")


def _open(hosting: Hosting, relay: Relay | None) -> Device:
    tuning = hosting.tuning
    return Device(
        hosting.name,
        tun_fd=hosting.tun_fd,
        uapi_fd=hosting.uapi_fd,
        offload_disable=Offload(tuning.offload_disable),
        threads=tuning.threads,
        realtime=tuning.realtime,
        memory_limit=tuning.memory_limit,
        take_over=hosting.take_over,
        log_level=LogLevel(tuning.log_level),
        log_fd=tuning.log_fd if relay is None else relay.fd,
    )


class _Beside:
    """A companion, if there is one, whose thread is there, with all capabilities, before there is a
    device: it waits for ``begin``."""

    def __init__(self, companion: Companion | None, log: Log) -> None:
        self._moved: Callable[[], None] | None = None
        self._may_go = threading.Event()
        self._thread: threading.Thread | None = None
        if companion is not None:
            self._thread = threading.Thread(
                target=self._run, args=(companion, log), name="pywg beside", daemon=True
            )
            self._thread.start()

    def _run(self, companion: Companion, log: Log) -> None:
        self._may_go.wait()
        if self._moved is not None:
            companion(log, self._moved)

    def begin(self, moved: Callable[[], None]) -> None:
        self._moved = moved
        self._may_go.set()

    def forget(self) -> None:
        """One that has not begun never does."""
        self._may_go.set()

    def join(self, timeout_s: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout_s)


def _announcer(
    device: Device, hosting: Hosting, listener: socket.socket | None
) -> Announcer | None:
    """None where there is nothing to tell it by."""
    if hosting.events is None and listener is None:
        return None
    path = None if hosting.events is None else Path(hosting.events)
    given = () if listener is None else (listener,)
    try:
        return Announcer(hosting.name, device, path, given)
    except OSError as error:
        _log_to(hosting, LogLevel.ERROR)(f"events cannot be told: {os.strerror(error.errno or 0)}")
        return None


def _watcher(device: Device, hosting: Hosting, renewed: Renewed | None) -> endpoints.Watcher:
    def read() -> list[endpoints.Name] | None:
        names = renewed() if renewed is not None else None
        return None if names is None else endpoints.names_from_json(names)

    def look_up(endpoint: Endpoint, family: Family) -> Sequence[Endpoint]:
        if hosting.outside is None:
            return resolver.look_up(endpoint, family)
        mark = device.get().fwmark  # whoever set it, and whenever
        return hosting.outside.look_up(endpoint, family, mark)

    port = SourcePort(lambda: device.set("listen_port=0\n"), _log_to(hosting, LogLevel.ERROR))
    return endpoints.Watcher(
        device,
        endpoints.names_from_json(hosting.names),
        renewed=None if renewed is None else read,
        look_up=look_up,
        log=_log_to(hosting, LogLevel.VERBOSE),
        tell=_log_to(hosting, LogLevel.ERROR),
        also=port.check if hosting.port_is_free else None,
    )


def _log_to(hosting: Hosting, level: LogLevel) -> Log:
    """Beside what the core logs, or to the system's log where nobody asked for one; nowhere unless
    this level is wanted."""
    tuning = hosting.tuning
    writer = Writer(hosting.name, tuning.log_fd, tuning.log_format)

    def log(line: str) -> None:
        if tuning.log_level >= level:
            writer.write(line, level)

    return log


def _relay(hosting: Hosting) -> Relay | None:
    """Between the core and the log, where its lines are to have another form or go to the system's
    log."""
    tuning = hosting.tuning
    level = LogLevel(tuning.log_level)  # the core does not tell which one a line has
    if level is LogLevel.SILENT:
        return None
    if Writer(hosting.name, tuning.log_fd, tuning.log_format).is_plain:
        return None
    return Relay(hosting.name, _log_to(hosting, level))


class Supervisor:
    """A process that waits for its Hosting. It ends by itself if it never gets one.

    ``renewed`` is asked there, and ``companion`` runs there: they are forked with all they know,
    and so are ``listener`` and ``follower``, for a process of its own each.
    """

    def __init__(
        self,
        keep_fds: Iterable[int] = (),
        renewed: Renewed | None = None,
        companion: Companion | None = None,
        listener: Listener | None = None,
        follower: Follower | None = None,
    ) -> None:
        # Loaded here: the child leaves the folder that a relative PYWG_CORE counts from.
        library.load()
        try:
            self._socket, theirs = socket.socketpair()
            child = os.fork()
        except OSError as error:
            raise system_call(error, "cannot start the background process") from None
        if child == 0:
            self._socket.close()
            beside = Beside(renewed, companion, listener, follower)
            _detach(theirs, {theirs.fileno(), *keep_fds}, beside)
        theirs.close()
        os.waitpid(child, 0)  # the first of two forks ends at once

    def start(self, hosting: Hosting) -> None:
        """Returns when interface and UAPI socket exist; raises the line the process left."""
        with contextlib.suppress(OSError):  # it is gone: no answer will come either
            self._socket.sendall(hosting.to_json())
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

    def end(self) -> End:
        """Waits for it."""
        known = {_ENDED: End.WELL, _HANDED_OVER: End.HANDED_OVER}
        return known.get(_read_all(self._socket), End.CRASHED)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _detach(
    control: socket.socket,
    keep: set[int],
    beside: Beside,
) -> None:
    """The child: leaves the session, forks once more and serves. Does not return."""
    code = 1
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        _harden(keep)
        code = _serve(control, beside)
    finally:
        os._exit(code)


def _serve(
    control: socket.socket,
    beside: Beside,
) -> int:
    request = _read_all(control)
    if not request:
        return 0  # the parent changed its mind, or died
    hosting = Hosting.from_json(request)
    following: socket.socket | None = None  # open for as long as we are there
    listening: socket.socket | None = None
    try:
        if beside.follower is not None:
            following = _apart(beside.follower, hosting, [control], "peers are followed")
        if beside.listener is not None:
            others = [control] if following is None else [control, following]
            listening = _apart(beside.listener, hosting, others, "hook is run for peers")
        if hosting.netns is not None:
            netns.enter(hosting.netns)
        host(hosting, control, beside.renewed, beside.companion, listening)
    except PywgError as error:
        with contextlib.suppress(OSError):
            control.sendall(str(error).encode("utf-8"))
        return 1
    return 0


def _apart(
    run: Listener, hosting: Hosting, others: Iterable[socket.socket], what: str
) -> socket.socket:
    """Forks a process for it; the answer is our end of its socket. Whoever waits for the end of one
    of the ``others`` does not wait for that process."""
    try:
        ours, theirs = socket.socketpair()
        child = os.fork()
    except OSError as error:
        raise system_call(error, "cannot start a process beside the tunnel") from None
    if child != 0:
        theirs.close()
        return ours
    try:
        ours.close()
        for other in others:
            other.close()
        log = _log_to(hosting, LogLevel.ERROR)
        try:
            run(theirs, log)
        except (PywgError, OSError, ValueError) as error:
            log(f"no {what} any more: {error}")
        except Exception as error:  # or nobody would hear of it
            log(f"no {what} any more: {error!r}")
    finally:
        os._exit(0)


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
    close_others(keep)


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
