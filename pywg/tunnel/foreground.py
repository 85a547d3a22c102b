"""`pywg up --foreground`: stays beside a tunnel that is up, tells systemd, and takes it down again.

When another version takes the tunnel over, this process becomes that version by exec: it is the
same process to whoever started it. Knows how a service lives, not what a tunnel consists of.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from typing import Protocol, Self

from pywg.errors import PywgError
from pywg.service import notify
from pywg.service.supervisor import End, forbid_dumps
from pywg.tunnel import record
from pywg.tunnel.down import down
from pywg.tunnel.trace import Reporter
from pywg.wireguard import socket as uapi_socket

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PROBE_S = 1.0


class Hosted(Protocol):
    """The process beside which it stays: ``Supervisor``, or ``Running``."""

    def fileno(self) -> int: ...

    def end(self) -> End: ...


class Running:
    """The process that hosts a tunnel, which somebody else has started."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._fd = -1
        with contextlib.suppress(OSError):  # it has ended by now
            process = uapi_socket.owner(name)
            if process:
                self._fd = os.pidfd_open(process)

    def fileno(self) -> int:
        return self._fd

    def end(self) -> End:
        """Waits for it. Who ends well takes the file of his socket away."""
        if self._fd >= 0:
            select.select([self._fd], [], [])
            if uapi_socket.is_alive(self._name):
                return End.HANDED_OVER
        while uapi_socket.is_alive(self._name):  # by a process that we cannot see
            time.sleep(PROBE_S)
        return End.CRASHED if uapi_socket.socket_path(self._name).exists() else End.WELL

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def stay(name: str, hosted: Hosted, reporter: Reporter) -> int:
    """Until a signal, or until the tunnel ends by itself; the answer is the exit code.

    A tunnel that somebody deleted ended well; a background process that died did not.
    """
    forbid_dumps()  # this process has read the file
    notify.ready(f"{name} is up")
    return watch(name, hosted, reporter)


def resume(name: str, reporter: Reporter) -> int:
    """As ``stay``, in the process that has become this version, beside one that hosts already."""
    forbid_dumps()
    notify.status(f"{name} is up, taken over from another version")
    with Running(name) as running:
        return watch(name, running, reporter)


def watch(name: str, hosted: Hosted, reporter: Reporter) -> int:
    try:
        # Blocked by who executed us, as long as nothing would have caught them.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        if hosted.fileno() >= 0:
            select.select([hosted], [], [])
        end = hosted.end()
        while end is End.HANDED_OVER:
            become_newer(name, reporter)
            with Running(name) as running:  # it could not be executed
                end = running.end()
    except KeyboardInterrupt as signalled:  # what `pywg` makes of SIGTERM too
        take_down(name, signalled, reporter)
        return 0
    ignore_signals()
    notify.stopping(f"{name} ended")
    code = 0 if end is End.WELL else 1
    with contextlib.suppress(PywgError):  # nothing may be left of it
        down(name, reporter=reporter)
    return code


@contextlib.contextmanager
def guarded(name: str, reporter: Reporter) -> Iterator[None]:
    """Around `up` and ``stay``: a signal between the two finds a tunnel that is up, and nobody who
    would take it down."""
    try:
        yield
    except KeyboardInterrupt as signalled:
        found = record.read(name)
        if found is None or not found.is_up:
            raise
        take_down(name, signalled, reporter)


def take_down(name: str, signalled: KeyboardInterrupt, reporter: Reporter) -> None:
    ignore_signals()
    reporter.warn(f"{signalled or 'SIGINT'}: taking {name} down")
    notify.stopping(f"taking {name} down")
    down(name, reporter=reporter)


def become_newer(name: str, reporter: Reporter) -> None:
    """Executes what the version that hosts the tunnel now has written down; returns where there is
    nothing, as where `pywgd --take-over` hosts it, or where it cannot be executed."""
    words = record.resuming(name)
    if not words:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until somebody catches them
    try:
        os.execv(words[0], words)  # noqa: S606 - no shell is wanted
    except OSError as error:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        reporter.warn(f"{words[0]}: {os.strerror(error.errno or 0)}: the old version stays beside")


def ignore_signals() -> None:
    """A second one must not leave the work half done."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
