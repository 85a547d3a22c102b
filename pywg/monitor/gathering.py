"""Asks interfaces what they do, all at the same time: a slow or a dead one holds up no other.

Knows sockets, netlink and files of names; what is made of the answers is series.py's.
"""

from __future__ import annotations

import errno
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pywg import wireguard
from pywg.errors import NetworkError, PywgError, UapiError
from pywg.keys import PublicKey
from pywg.monitor.series import Backend, Seen
from pywg.tunnel import record
from pywg.tunnel.names import file_of, names_of
from pywg.wireguard import condition
from pywg.wireguard import socket as uapi_socket
from pywg.wireguard.status import InterfaceStatus, Report

#: What an interface has to answer. Prometheus itself waits for ten seconds.
DEADLINE_S = 4.0


def present() -> list[str]:
    """Names of all interfaces, without asking a device: one that hangs is still one. A socket that
    a killed process has left is passed by."""
    kernel: list[str] = []
    if wireguard.KERNEL_MODULE.exists():
        from pywg.wireguard import netlink

        try:
            kernel = netlink.interfaces()
        except NetworkError:
            kernel = []
    return [*kernel, *uapi_socket.interfaces(timeout_s=0)]


class Names:
    """What people call the peers: a file is read again only when it has changed."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[object, ...], dict[PublicKey, str]]] = {}

    def of(self, interface: str) -> Mapping[PublicKey, str]:
        try:
            path = file_of(interface)
            stamp = _stamp(path)
        except (PywgError, OSError):
            return {}
        known = self._known.get(interface)
        if known is None or known[0] != stamp:
            known = self._known[interface] = (stamp, names_of(interface))
        return known[1]


def _stamp(path: Path) -> tuple[object, ...]:
    status = path.stat()
    return (str(path), status.st_ino, status.st_size, status.st_mtime_ns)


def look(interface: str, names: Names) -> Seen:
    """What one interface does. Raises UapiError or NetworkError."""
    began = time.monotonic()
    backend: Backend = "userspace"
    report: Report | None = None
    try:
        status = uapi_socket.get(interface)
    except UapiError as error:
        if error.os_errno not in (errno.ENOENT, errno.ECONNREFUSED):
            raise
        status = wireguard.get(interface)
        backend = "kernel"
    else:
        report = _report(interface)
        backend = "userspace" if report is None else "pywg"
    return Seen(
        interface,
        backend,
        time.monotonic() - began,
        status,
        names.of(interface),
        report,
        healed=len(record.healed(interface)),
        states={} if report is None else _states(status, report),
    )


def _states(status: InterfaceStatus, report: Report) -> dict[PublicKey, str]:
    """Of the peers of which there is something to complain."""
    found = condition.complaints(status.peers, report, int(time.time()))
    return {key: state.word for key, state in found.items()}


def _report(interface: str) -> Report | None:
    """None where another implementation knows no such question."""
    try:
        return uapi_socket.report(interface)
    except UapiError:
        return None


@dataclass(slots=True)
class _Question:
    """To one interface, in a thread of its own."""

    answered: threading.Event = field(default_factory=threading.Event)
    seen: Seen | None = None
    reason: str = ""

    def ask(self, interface: str, names: Names, look: Callable[[str, Names], Seen]) -> None:
        try:
            self.seen = look(interface, names)
        except (PywgError, OSError) as error:
            self.reason = reason_of(error)
        except Exception:
            self.reason = "internal"
            raise
        finally:
            self.answered.set()


def reason_of(error: Exception) -> str:
    """A word for a label, of which there are few."""
    code = getattr(error, "os_errno", 0) or getattr(error, "errno", 0)
    match code:
        case errno.ETIMEDOUT:
            return "timeout"
        case errno.EACCES | errno.EPERM:
            return "permission"
        case errno.ENOENT | errno.ECONNREFUSED | errno.ENODEV:
            return "gone"
        case _:
            return "answer"


class Gatherer:
    """One round at a time; ``errors`` counts what did not answer: (interface, reason)."""

    def __init__(
        self,
        wanted: Sequence[str] = (),
        deadline_s: float = DEADLINE_S,
        *,
        present: Callable[[], list[str]] = present,
        look: Callable[[str, Names], Seen] = look,
    ) -> None:
        """Without ``wanted`` all there are at that moment."""
        self._wanted = tuple(wanted)
        self._deadline_s = deadline_s
        self._present = present
        self._look = look
        self._names = Names()
        self._one_at_a_time = threading.Lock()
        self._open: dict[str, _Question] = {}
        self.errors: Counter[tuple[str, str]] = Counter()

    def gather(self) -> list[Seen]:
        """What each interface does, in their order; without a status where one did not answer."""
        with self._one_at_a_time:
            began = time.monotonic()
            names = list(dict.fromkeys(self._wanted or self._present()))
            for name in names:
                # One that still does not answer the round before gets no second thread.
                if name not in self._open:
                    self._open[name] = self._asked(name)
            return [self._answer(name, began) for name in names]

    def _asked(self, name: str) -> _Question:
        question = _Question()
        threading.Thread(
            target=question.ask,
            args=(name, self._names, self._look),
            name=f"pywg scrape {name}",
            daemon=True,
        ).start()
        return question

    def _answer(self, name: str, began: float) -> Seen:
        question = self._open[name]
        left = self._deadline_s - (time.monotonic() - began)
        if not question.answered.wait(max(0, left)):
            reason = "timeout"
        else:
            del self._open[name]
            if question.seen is not None:
                return question.seen
            reason = question.reason
        self.errors[name, reason] += 1
        return Seen(name, "userspace", time.monotonic() - began)
