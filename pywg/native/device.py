"""Device: a whole WireGuard interface in this process. TUN, sockets and timers are the core's.

Knows handles and threads, not files or addresses: those are plan.py's. The core starts no thread,
so ``start`` gives it Python's (ctypes releases the interpreter lock while they run).
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import operator
import os
import select
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from typing import Self

from pywg.config import Config, InterfaceSection, PeerSection
from pywg.errors import DeviceError, Status
from pywg.host import resolver
from pywg.keys import PublicKey
from pywg.native import abi, library
from pywg.native.calls import check, new_diagnostic, read_text
from pywg.native.event_stream import EventStream
from pywg.native.events import Event, endpoint_of, of_record
from pywg.native.options import LogLevel, Offload
from pywg.native.owned import Owned
from pywg.native.runs import Runs
from pywg.wireguard import uapi
from pywg.wireguard.changes import of_config, of_peer, removing, synchronizing
from pywg.wireguard.diff import Diff, diff
from pywg.wireguard.status import InterfaceStatus, PeerCounters, Report


def default_threads() -> int:
    """Half of the cores this process may use, 1 to 4: as pywgd."""
    return max(1, min(4, len(os.sched_getaffinity(0)) // 2))


def realtime_by_default(threads: int) -> bool:
    """Whether so many realtime threads leave a core to the others: as pywgd."""
    return threads < len(os.sched_getaffinity(0))


class Device(Owned):
    """An interface of this process: made by the constructor (link down), gone after ``close``.

    ``with Device("wg0", config) as device:`` also gives it its threads for the length of the block.
    One that is dropped without ``close`` closes itself, with a ResourceWarning, and so does one
    that is left when the program ends.

    name: of the interface, 1 to 15 of ``[a-zA-Z0-9_=+.-]``.
    config: as ``set`` takes it; None leaves all to later calls.
    mtu: bytes of an inner packet, 68 to 65535; 0 means 1420.
    tun_fd, uapi_fd: a TUN and a listening UAPI socket to take over; -1 to make them. They are the
        device's from when the constructor returns.
    uapi_socket: whether to listen on /var/run/wireguard/NAME.sock, for `wg` and others.
    offload_disable: what not to use even if the kernel has it.
    threads: 1 to 64. Each has a queue of the TUN and sockets of its own.
    realtime: whether the threads that ``start`` makes come before ordinary programs, where that is
        allowed (CAP_SYS_NICE).
    memory_limit: bytes it takes at most, 0 for no limit: buffers when it is made, then peers.
    udp4_fd, udp6_fd: UDP sockets to take over instead of making some, bound by you to one port,
        that of IPv6 with IPV6_V6ONLY: for a hole in a NAT, or a socket that a VPN service protects.
        For one thread. A family without one is not used, and the port stays. -1 for none.
    take_over: take interface, sockets, peers and live sessions over from the process that serves
        ``name``, which then ends: its ``was_handed_over`` becomes true. Nothing is made, ``mtu``
        and ``threads`` mean nothing, and packets wait in the kernel until ``start``. When it cannot
        be, that process goes on as before.
    log_level, log_fd: which lines are written, and where to; -1 for none. Nobody waits for whoever
        reads them: with a pipe or socket lines that find no room are counted and lost.

    Any thread may call any method. In a forked child a device is of no use and harmless, its
    descriptors are closed there, and every method raises DeviceError with Status.FORKED. After
    ``close`` every method but ``stop`` and ``close`` raises it with Status.CLOSED.

    Raises DeviceError, with Status.INVALID_ARGUMENT (a value is out of range), NAME_IN_USE,
    NOT_FOUND (no /dev/net/tun), OUT_OF_MEMORY or SYSTEM; PermissionDenied (no CAP_NET_ADMIN); for
    ``config`` whatever ``set`` raises.
    """

    def __init__(
        self,
        name: str,
        config: Config | str | None = None,
        *,
        mtu: int = 0,
        tun_fd: int = -1,
        uapi_fd: int = -1,
        uapi_socket: bool = True,
        offload_disable: Offload = Offload.NONE,
        threads: int = 1,
        realtime: bool = False,
        memory_limit: int = 0,
        udp4_fd: int = -1,
        udp6_fd: int = -1,
        take_over: bool = False,
        log_level: LogLevel = LogLevel.ERROR,
        log_fd: int = -1,
    ) -> None:
        super().__init__(name)
        self._library = library.load()
        self._runs = Runs()
        self._is_stopped = False
        self._may_have_threads = threads > 1 or take_over
        self._realtime = realtime
        options = abi.pywg_device_options(
            size=ctypes.sizeof(abi.pywg_device_options),
            name=_c_string(name),
            mtu=_fitting(name, "mtu", mtu, _UINT32),
            tun_fd=_fitting(name, "tun_fd", tun_fd, _INT32),
            uapi_fd=_fitting(name, "uapi_fd", uapi_fd, _INT32),
            offload_disable=_fitting(name, "offload_disable", offload_disable, _UINT32),
            log_level=_fitting(name, "log_level", log_level, _UINT32),
            log_fd=_fitting(name, "log_fd", log_fd, _INT32),
            no_uapi=0 if uapi_socket else 1,
            threads=_fitting(name, "threads", threads, range(1, 65)),
            memory_limit=_fitting(name, "memory_limit", memory_limit, _UINT64),
            udp4_fd=_socket(name, "udp4_fd", udp4_fd),
            udp6_fd=_socket(name, "udp6_fd", udp6_fd),
            take_over=1 if take_over else 0,
        )
        handle = ctypes.c_void_p()
        diagnostic = new_diagnostic()
        status = self._library.pywg_device_open(
            ctypes.byref(options), ctypes.byref(handle), ctypes.byref(diagnostic)
        )
        check(status, diagnostic, name)
        self._handle = handle
        _open_devices.add(self)
        if config is not None:
            try:
                self.set(config)
            except BaseException:
                self.close()
                raise

    # ---- configuration

    def set(self, config: Config | str) -> None:
        """Makes it what a Config says, as ``apply``, or applies UAPI `set` text as it is.

        Raises what ``apply`` raises.
        """
        if isinstance(config, str):
            self._set_text(config)
        else:
            self.apply(config)

    def apply(self, config: Config) -> Diff:
        """Makes it what a Config says; peers that stay are changed in place and keep their
        sessions. Returns what became another.

        Names are looked up first, while packets move: five seconds at most, then it raises
        ConfigError and nothing has changed. A program with an event loop of its own calls this in
        another thread. Whoever else configures the device meanwhile is not seen in the answer.

        Raises ConfigError (a name has no address) or DeviceError, and then nothing has changed:
        ADDRESS_IN_USE (the port is taken), CONFIGURATION, LIMIT, OUT_OF_MEMORY, SYSTEM;
        PermissionDenied for a mark or an interface to bind to.
        """
        wanted = of_config(resolver.resolve_now(config))
        present = self.get()
        changes = synchronizing(wanted, present)
        self._set_text(uapi.changes_text(changes))
        return diff(changes, present)

    def add_peer(self, peer: PeerSection) -> None:
        """Adds one peer, or makes the one that has its public key be as this section says, in place
        and with its session. No other peer is looked at; allowed IPs of others that this one has,
        too, become its own.

        An endpoint that the section leaves out stays as it was learned; a preshared key and a
        keepalive are taken away. A name is looked up as by ``apply``. Raises what that raises.
        """
        if peer.endpoint is not None and peer.endpoint.address() is None:
            (peer,) = resolver.resolve_now(Config(InterfaceSection(), (peer,))).peers
        self._set_text(uapi.changes_text(of_peer(peer)))

    def remove_peer(self, public_key: PublicKey) -> None:
        """Removes one peer with its session; one that is not there is no error."""
        self._set_text(uapi.changes_text(removing(public_key)))

    def handshake(self, public_key: PublicKey) -> None:
        """Asks for a new handshake with a peer as soon as one is allowed (5 seconds after the
        last, REKEY_TIMEOUT), whatever session there is. Returns at once: ``HandshakeDone`` says
        that it is done.

        Raises DeviceError: NOT_FOUND (no such peer), CONFIGURATION (no private key, no endpoint, or
        the link is down).
        """
        diagnostic = new_diagnostic()
        with self._calls:
            status = self._library.pywg_device_handshake(
                self._open_handle(), bytes(public_key), ctypes.byref(diagnostic)
            )
        check(status, diagnostic, self._subject)

    def _set_text(self, text: str) -> None:
        data = text.encode("utf-8")
        diagnostic = new_diagnostic()
        with self._calls:
            status = self._library.pywg_device_set(
                self._open_handle(), data, len(data), ctypes.byref(diagnostic)
            )
        check(status, diagnostic, self._subject)

    # ---- what it does

    def get(self) -> InterfaceStatus:
        """What it does, and what its sockets are bound to. It holds the private key and preshared
        keys: for statistics ``counters`` brings no secret into Python."""
        return uapi.add_bindings(uapi.parse_get(self.get_text()), self.report())

    def get_text(self) -> str:
        """The answer of UAPI `get`. It holds the private key."""
        return self._read(self._library.pywg_device_get)

    def counters(self) -> dict[PublicKey, PeerCounters]:
        """Of each peer, in the order in which they were added: endpoint, last handshake, bytes. No
        secrets."""
        count = 64
        written = ctypes.c_size_t()
        while True:
            array = (abi.pywg_peer_counters * count)()
            size = ctypes.sizeof(abi.pywg_peer_counters)
            with self._calls:
                status = self._library.pywg_device_counters(
                    self._open_handle(), array, size, count, ctypes.byref(written)
                )
            if status != Status.BUFFER_TOO_SMALL:
                break
            count = written.value + 64  # some may come before the next call
        check(status, None, self._subject)
        return {
            key: PeerCounters(
                key,
                endpoint_of(raw.endpoint),
                raw.last_handshake_unix_ns,
                raw.rx_bytes,
                raw.tx_bytes,
            )
            for raw in array[: written.value]
            for key in (PublicKey(bytes(raw.public_key)),)
        }

    def report(self) -> Report:
        """Offloads in use, packets dropped by reason, the cipher path; no secrets.
        ``other["listen_error"]`` is there while the link is up and its port cannot be had."""
        return uapi.parse_report(self._read(self._library.pywg_device_report))

    @property
    def name(self) -> str:
        """What the kernel calls the interface."""
        return self._read(self._library.pywg_device_name)

    # ---- events

    def events(self) -> EventStream:
        """What happens from now on, for ``async for`` and for ``for``; see pywg.native.events.

        A device has one queue, of 1024 events, and each event is given once: to one reader, or to
        the first of several that asks. Nothing waits for a reader; what finds no room is counted
        (``EventsLost``). The iteration ends after ``InterfaceRemoved`` and when the device is
        closed. Raises DeviceError: OUT_OF_MEMORY, SYSTEM (no more descriptors).
        """
        return EventStream(self._take_event, self._duplicate_events_fd())

    def wait_event(self, timeout: float | None = None) -> Event | None:
        """The next event, waiting up to ``timeout`` seconds for it (None: for ever); None when
        there was none. Events are kept from the first call of this or ``events`` on.

        Raises what ``events`` raises, and DeviceError with Status.CLOSED when the device is closed
        meanwhile.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        readable = self._duplicate_events_fd()
        try:
            poll = select.poll()
            poll.register(readable, select.POLLIN)
            while (event := self._take_event()) is None:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                poll.poll(None if left is None else left * 1000)
            return event
        finally:
            os.close(readable)

    def _duplicate_events_fd(self) -> int:
        """The device's own is closed with it, and its number may be another file's then."""
        readable = ctypes.c_int32()
        diagnostic = new_diagnostic()
        with self._calls:
            status = self._library.pywg_device_events_open(
                self._open_handle(), 0, ctypes.byref(readable), ctypes.byref(diagnostic)
            )
            check(status, diagnostic, self._subject)
            return os.dup(readable.value)

    def _take_event(self) -> Event | None:
        """One at a time: what is left keeps the descriptor readable for other readers."""
        raw = abi.pywg_event()
        written = ctypes.c_size_t(1)
        event = None
        while event is None and written.value == 1:  # not one that only a newer core knows
            # Not `_calls`: a long `set` of another thread must not hold up an event loop.
            with self._fetching:
                status = self._library.pywg_device_events(
                    self._open_handle(),
                    ctypes.byref(raw),
                    ctypes.sizeof(raw),
                    1,
                    ctypes.byref(written),
                )
            check(status, None, self._subject)
            event = of_record(raw) if written.value == 1 else None
        return event

    # ---- threads

    def run(self) -> None:
        """Moves packets in this thread until ``stop``, until the interface is removed, or until
        another process has taken it over (``was_handed_over``).

        As many threads may be in here as the constructor was told; one more gets DeviceError with
        Status.INVALID_ARGUMENT. Python's signal handlers do not run meanwhile: in a main thread use
        ``start`` instead.
        """
        with self._calls:
            handle = self._open_handle()
            self._runs.begin()
        error = _run(self._library, handle, self._runs, self._subject)
        if error is not None:
            raise error

    def start(self, finished: Callable[[], None] | None = None) -> None:
        """Runs in threads of its own. The last of them to end calls ``finished`` in itself, however
        it ends; that may call any method of the device, ``close`` too.

        Raises DeviceError with Status.INVALID_ARGUMENT when it runs already, or has run: a stop is
        for good. RuntimeError when there are no threads to be had.
        """
        if self._is_stopped:
            raise DeviceError(
                f"{self._subject}: was stopped, which is for good; open another Device",
                Status.INVALID_ARGUMENT,
            )
        if self._runs.threads:
            has_ended = not any(thread.is_alive() for thread in self._runs.threads)
            state = "has ended; open another Device" if has_ended else "runs already"
            raise DeviceError(f"{self._subject}: {state}", Status.INVALID_ARGUMENT)
        started = _Started(finished, self._realtime)
        # None ends before all have begun: each then waits to be counted.
        with started.counting:
            for number in range(self._granted_threads()):
                try:
                    self._start_one(number, started)
                except RuntimeError:
                    if not self._runs.threads:
                        raise
                    break  # no more threads to be had: fewer, then

    def _start_one(self, number: int, started: _Started) -> None:
        """The thread knows the handle and not the device: a device that is dropped can be found so,
        and closes itself. Counted here, so that nobody closes the handle before it is used."""
        with self._calls:
            handle = self._open_handle()
            self._runs.begin()
        thread = threading.Thread(
            target=_run_in_thread,
            args=(
                partial(_run, self._library, handle, self._runs, self._subject),
                self._runs,
                started,
            ),
            name=f"pywg {self._subject} {number}",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:
            self._runs.end()
            raise
        self._runs.threads.append(thread)
        started.running += 1

    def _granted_threads(self) -> int:
        """A TUN that was there before has one queue, and so one thread."""
        return int(self.report().other.get("threads", "1")) if self._may_have_threads else 1

    def wait(self, timeout: float | None = None) -> bool:
        """True when the threads have ended; False when they have not in ``timeout`` seconds.

        Raises DeviceError: what ended them; or, when the time is over, that the link is up and its
        port cannot be had (ADDRESS_IN_USE, SYSTEM), although the device goes on and tries again
        each second. ``events`` tells that at once.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self._runs.threads:
            thread.join(None if deadline is None else max(0, deadline - time.monotonic()))
            if thread.is_alive():
                self._check_port()
                return False
        if self._runs.failure is not None:
            raise self._runs.failure
        return True

    def _check_port(self) -> None:
        """Raises what keeps a link that is up from having sockets."""
        try:
            report = self.report()
        except DeviceError as error:
            if error.status != Status.CLOSED:
                raise
            return  # by another thread, while this one waited
        reason = report.other.get("listen_error")
        if reason is not None:
            raise listen_error(reason, self._subject)

    @property
    def was_handed_over(self) -> bool:
        """Whether another process serves the interface now: then the threads have ended, or are
        about to, without an error, and ``close`` takes neither interface nor socket away. To be
        asked in ``finished``, and after ``run`` and ``wait``."""
        return self._runs.was_handed_over

    def stop(self) -> None:
        """Makes ``run`` return soon, and every later one at once: a stop is for good. Harmless when
        it does not run, and after ``close``. For signal handlers too."""
        with self._stopping:
            if self._handle is not None:
                self._is_stopped = True
                self._library.pywg_device_stop(self._handle)

    def close(self) -> None:
        """Removes interface and socket and zeroes all keys. A second time is harmless. Waits for
        the threads to end."""
        if self._handle is None:
            return
        self.stop()
        for thread in self._runs.threads:
            if thread is not threading.current_thread():
                thread.join()
        with self._calls, self._stopping, self._fetching:
            self._runs.wait_for_end()
            handle, self._handle = self._handle, None
            if handle is not None:
                self._library.pywg_device_close(handle)

    def __enter__(self) -> Self:
        self._open_handle()  # a closed one runs no more
        if not self._runs.threads:
            try:
                self.start()
            except BaseException:
                self.close()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self._handle is None else "open"
        return f"<pywg.Device {self._subject} {state}>"

    def _make_locks(self) -> None:
        self._calls = threading.Lock()  # close must not overlap with another call
        # Nor with stop. A lock of its own, for a signal handler may stop in the middle of a call.
        self._stopping = threading.RLock()
        self._fetching = threading.Lock()

    def _leave_to_parent(self) -> None:
        handle = self._handle
        super()._leave_to_parent()
        self._runs = Runs()  # the threads are not here
        if handle is not None:
            # Gives back descriptors, by which interface and port would outlive the parent's close.
            self._library.pywg_device_close(handle)

    def _read(self, function: Callable[..., int]) -> str:
        with self._calls:
            return read_text(function, self._open_handle(), self._subject)


_open_devices: weakref.WeakSet[Device] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Before the interpreter ends: an interface goes with its process, the file of its socket would
    not."""
    for device in list(_open_devices):
        with contextlib.suppress(DeviceError):
            device.close()


class _Started:
    """What threads that were started together share; the last of them calls ``finished``."""

    def __init__(self, finished: Callable[[], None] | None, is_realtime: bool) -> None:
        self.is_realtime = is_realtime
        self.counting = threading.Lock()
        self.running = 0
        self._finished = finished

    def leave(self) -> None:
        with self.counting:
            self.running -= 1
            is_last = self.running == 0
        if is_last and self._finished is not None:
            self._finished()


def _run(
    core: ctypes.CDLL, handle: ctypes.c_void_p, runs: Runs, subject: str
) -> DeviceError | None:
    """In this thread, which was counted by ``runs``; what went wrong."""
    diagnostic = new_diagnostic()
    try:
        status = core.pywg_device_run(handle, ctypes.byref(diagnostic))
        runs.was_handed_over = runs.was_handed_over or status == Status.HANDED_OVER
    finally:
        runs.end()
    if status == Status.HANDED_OVER:
        return None
    try:
        check(status, diagnostic, subject)
    except DeviceError as error:
        return error
    return None


def _run_in_thread(run: Callable[[], DeviceError | None], runs: Runs, started: _Started) -> None:
    try:
        if started.is_realtime:
            _make_realtime()
        runs.failure = run() or runs.failure
    finally:
        started.leave()


# ---- values for C

_UINT32, _UINT64, _INT32 = range(1 << 32), range(1 << 64), range(-(1 << 31), 1 << 31)


def _c_string(name: str) -> bytes:
    if "\0" in name:
        raise DeviceError("the interface name has a NUL in it", Status.INVALID_ARGUMENT)
    return name.encode("utf-8", "surrogateescape")


def _socket(subject: str, what: str, fd: int) -> int:
    """To C 0 is none, as in a struct of an older header."""
    if fd == 0:
        text = f"{subject}: {what} is standard input, which cannot be taken over"
        raise DeviceError(text, Status.INVALID_ARGUMENT)
    return _fitting(subject, what, fd, _INT32)


def _fitting(subject: str, what: str, value: int, allowed: range) -> int:
    """ctypes would cut it to what fits."""
    number = operator.index(value)
    if number not in allowed:
        raise DeviceError(
            f"{subject}: {what} {number} is out of range: {allowed[0]} to {allowed[-1]}",
            Status.INVALID_ARGUMENT,
        )
    return number


def listen_error(reason: str, subject: str) -> DeviceError:
    """For a link that is up and has no sockets; ``reason`` is the name of an errno."""
    os_errno = int(getattr(errno, reason, 0))
    status = Status.ADDRESS_IN_USE if reason == "EADDRINUSE" else Status.SYSTEM
    words = os.strerror(os_errno) if os_errno else reason
    text = f"the listen port cannot be had: {words}; it is tried again each second"
    return DeviceError.explain(status, os_errno, text, subject)


def _make_realtime() -> None:
    """This thread alone: the lowest realtime priority, not inherited by children (sched(7))."""
    with contextlib.suppress(OSError):  # not allowed: then as an ordinary one
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
