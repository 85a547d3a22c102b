"""Device: a whole WireGuard interface in this process. TUN, sockets and timers are the core's.

Knows handles and threads, not files or addresses: those are plan.py's. The core starts no thread,
so ``start`` gives it Python's (ctypes releases the interpreter lock while they run).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from collections.abc import Callable
from enum import IntEnum, IntFlag
from typing import Self

from pywg.config import Config
from pywg.errors import DeviceError, Status
from pywg.host import resolver
from pywg.native import abi, library
from pywg.native.calls import check, new_diagnostic, read_text
from pywg.native.owned import Owned
from pywg.wireguard import uapi
from pywg.wireguard.changes import of_config, synchronizing
from pywg.wireguard.status import InterfaceStatus, Report


class Offload(IntFlag):
    """What the kernel can do for us; each can be switched off by name."""

    NONE = 0
    TUN_TSO = abi.PYWG_OFFLOAD_TUN_TSO
    TUN_USO = abi.PYWG_OFFLOAD_TUN_USO
    UDP_GSO = abi.PYWG_OFFLOAD_UDP_GSO
    UDP_GRO = abi.PYWG_OFFLOAD_UDP_GRO
    TUN_TUNNEL = abi.PYWG_OFFLOAD_TUN_TUNNEL
    ALL = TUN_TSO | TUN_USO | UDP_GSO | UDP_GRO | TUN_TUNNEL

    @classmethod
    def parse(cls, text: str) -> Offload:
        """``tun_tso,udp_gso`` or ``all``, as pywgd; ValueError names the word that is none."""
        result = cls.NONE
        names = {member.lower(): member for member in cls.__members__ if member != "NONE"}
        for word in filter(None, (part.strip() for part in text.split(","))):
            if word not in names:
                raise ValueError(f'unknown offload "{word}"; there are {", ".join(names)}')
            result |= cls[names[word]]
        return result


class LogLevel(IntEnum):
    SILENT = abi.PYWG_LOG_SILENT
    ERROR = abi.PYWG_LOG_ERROR
    VERBOSE = abi.PYWG_LOG_VERBOSE

    @classmethod
    def parse(cls, text: str) -> LogLevel:
        """LOG_LEVEL as wireguard-go reads it; anything unknown means errors."""
        levels = {"verbose": cls.VERBOSE, "debug": cls.VERBOSE, "silent": cls.SILENT}
        return levels.get(text.lower(), cls.ERROR)


def default_threads() -> int:
    """Half of the cores this process may use, 1 to 4: as pywgd."""
    return max(1, min(4, len(os.sched_getaffinity(0)) // 2))


def realtime_by_default(threads: int) -> bool:
    """Whether so many realtime threads leave a core to the others: as pywgd."""
    return threads < len(os.sched_getaffinity(0))


class Device(Owned):
    """An interface of this process: made by the constructor (link down), gone after ``close``.

    ``with Device("wg0", config) as device:`` also gives it its threads for the length of the block.
    Each of the ``threads`` has a queue of the TUN and sockets of its own. Any thread may call
    ``set``, ``get``, ``report`` and ``stop``. With ``realtime`` those that ``start`` makes come
    before ordinary programs, where that is allowed (CAP_SYS_NICE). It takes ``memory_limit`` bytes
    at most, 0 for no limit: buffers when it is made, then peers. In a forked child it is of no use
    and harmless: DeviceError with Status.FORKED.
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
        log_level: LogLevel = LogLevel.ERROR,
        log_fd: int = -1,
    ) -> None:
        super().__init__(name)
        self._library = library.load()
        self._runs = 0  # threads in run()
        self._threads: list[threading.Thread] = []
        self._threads_wanted = threads
        self._realtime = realtime
        self._failure: DeviceError | None = None
        options = abi.pywg_device_options(
            size=ctypes.sizeof(abi.pywg_device_options),
            name=name.encode("utf-8", "surrogateescape"),
            mtu=mtu,
            tun_fd=tun_fd,
            uapi_fd=uapi_fd,
            offload_disable=int(offload_disable),
            log_level=int(log_level),
            log_fd=log_fd,
            no_uapi=0 if uapi_socket else 1,
            threads=threads,
            memory_limit=memory_limit,
        )
        handle = ctypes.c_void_p()
        diagnostic = new_diagnostic()
        status = self._library.pywg_device_open(
            ctypes.byref(options), ctypes.byref(handle), ctypes.byref(diagnostic)
        )
        check(status, diagnostic, name)
        self._handle = handle
        if config is not None:
            try:
                self.set(config)
            except BaseException:
                self.close()
                raise

    def set(self, config: Config | str) -> None:
        """Makes it what a Config says, peers that stay in place, or applies UAPI `set` text as it
        is.

        Names in a Config are looked up first, while packets move: five seconds at most, then it
        raises ConfigError and nothing has changed. A program with an event loop of its own calls
        this in another thread.
        """
        data = (config if isinstance(config, str) else self._set_text(config)).encode("utf-8")
        diagnostic = new_diagnostic()
        with self._calls:
            status = self._library.pywg_device_set(
                self._open_handle(), data, len(data), ctypes.byref(diagnostic)
            )
        check(status, diagnostic, self._subject)

    def get(self) -> InterfaceStatus:
        """What it does, and what its sockets are bound to."""
        return uapi.add_bindings(uapi.parse_get(self.get_text()), self.report())

    def _set_text(self, config: Config) -> str:
        numeric = resolver.resolve_now(config)
        return uapi.changes_text(synchronizing(of_config(numeric), self.get()))

    def get_text(self) -> str:
        """The answer of UAPI `get`. It holds the private key."""
        return self._read(self._library.pywg_device_get)

    def report(self) -> Report:
        """Offloads in use, packets dropped by reason, the cipher path."""
        return uapi.parse_report(self._read(self._library.pywg_device_report))

    @property
    def name(self) -> str:
        """What the kernel calls the interface."""
        return self._read(self._library.pywg_device_name)

    def run(self) -> None:
        """Moves packets in this thread until ``stop``, or until the interface is removed.

        As many threads may be in here as the constructor was told. Python's signal handlers do not
        run meanwhile: in a main thread use ``start`` instead.
        """
        diagnostic = new_diagnostic()
        with self._calls:
            handle = self._open_handle()
            with self._run_ended:
                self._runs += 1
        try:
            status = self._library.pywg_device_run(handle, ctypes.byref(diagnostic))
        finally:
            with self._run_ended:
                self._runs -= 1
                self._run_ended.notify_all()
        check(status, diagnostic, self._subject)

    def start(self, finished: Callable[[], None] | None = None) -> None:
        """Runs in threads of its own; the last to end calls ``finished``, however it ends."""
        if self._threads:
            raise DeviceError(f"{self._subject}: runs already", Status.INVALID_ARGUMENT)
        running = 0
        counting = threading.Lock()

        def body() -> None:
            nonlocal running
            if self._realtime:
                _make_realtime()
            try:
                self.run()
            except DeviceError as error:
                self._failure = error
            finally:
                with counting:
                    running -= 1
                    is_last = running == 0
                if is_last and finished is not None:
                    finished()

        # None ends before all have begun: each then waits to be counted.
        with counting:
            for number in range(self._granted_threads()):
                name = f"pywg {self._subject} {number}"
                thread = threading.Thread(target=body, name=name, daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    if not self._threads:
                        raise
                    break  # no more threads to be had: fewer, then
                self._threads.append(thread)
                running += 1

    def _granted_threads(self) -> int:
        """A TUN that was there before has one queue, and so one thread."""
        return int(self.report().other.get("threads", "1")) if self._threads_wanted > 1 else 1

    def wait(self, timeout: float | None = None) -> bool:
        """True when the threads have ended; raises what ended them."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            thread.join(None if deadline is None else max(0, deadline - time.monotonic()))
            if thread.is_alive():
                return False
        if self._failure is not None:
            raise self._failure
        return True

    def stop(self) -> None:
        """Makes ``run`` return soon; harmless when it does not run. For signal handlers too."""
        with self._stopping:
            if self._handle is not None:
                self._library.pywg_device_stop(self._handle)

    def close(self) -> None:
        """Removes interface and socket and zeroes all keys. A second time is harmless."""
        if self._handle is None:
            return
        self.stop()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        with self._calls, self._stopping:
            with self._run_ended:
                self._run_ended.wait_for(lambda: self._runs == 0)
            handle, self._handle = self._handle, None
            if handle is not None:
                self._library.pywg_device_close(handle)

    def __enter__(self) -> Self:
        if not self._threads:
            try:
                self.start()
            except BaseException:
                self.close()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._handle is None else "open"
        return f"<pywg.Device {self._subject} {state}>"

    def _make_locks(self) -> None:
        self._calls = threading.Lock()  # close must not overlap with another call
        # Nor with stop. A lock of its own, for a signal handler may stop in the middle of a call.
        self._stopping = threading.RLock()
        self._run_ended = threading.Condition()

    def _leave_to_parent(self) -> None:
        super()._leave_to_parent()
        self._threads = []  # they are not here

    def _read(self, function: Callable[..., int]) -> str:
        with self._calls:
            return read_text(function, self._open_handle(), self._subject)


def _make_realtime() -> None:
    """This thread alone: the lowest realtime priority, not inherited by children (sched(7))."""
    with contextlib.suppress(OSError):  # not allowed: then as an ordinary one
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
