"""Asks interfaces again and again: peers, pywg's report, names, and the CPU of who hosts them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pywg import wireguard
from pywg.errors import PywgError, UapiError
from pywg.host.processes import cpu_ns
from pywg.keys import PublicKey
from pywg.top.sampler import InterfaceView, Observation, Sampler
from pywg.tunnel import names
from pywg.wireguard import socket as uapi_socket
from pywg.wireguard.status import Report

Views = Mapping[str, InterfaceView | PywgError]


class Observer:
    """One interface by its name, and what was known of it before."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._sampler = Sampler()
        self._named_by: tuple[Path, int, int] | None = None
        self._names: dict[PublicKey, str] = {}
        self._process = 0
        self._reports = True

    def view(self) -> InterfaceView:
        """Raises UapiError or NetworkError where it does not answer."""
        return self._sampler.take(self._observe())

    def _observe(self) -> Observation:
        status = wireguard.get(self.name)
        # The clock first: what comes between is then the same each time.
        taken_ns, unix_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns()
        process = uapi_socket.owner(self.name)
        if process != self._process:
            self._process, self._reports = process, process != 0
        self._follow_names()
        return Observation(
            taken_ns, unix_ns, status.peers, self._names, self._report(), cpu_ns(process)
        )

    def _report(self) -> Report | None:
        """Another implementation does not know the question, and is asked it once."""
        if not self._reports:
            return None
        try:
            return uapi_socket.report(self.name)
        except UapiError:
            self._reports = False
            return None

    def _follow_names(self) -> None:
        """Reads the file with the names again when it is another, or was written."""
        found = None
        with contextlib.suppress(PywgError, OSError):
            file = names.file_of(self.name)
            stat = file.stat()
            found = (file, stat.st_mtime_ns, stat.st_size)
        if found != self._named_by:
            self._named_by, self._names = found, names.names_of(self.name)


class Observers:
    """Those of the names that are given; of none, of all interfaces there are at each moment."""

    def __init__(self, wanted: Sequence[str]) -> None:
        self.wanted = tuple(wanted)
        self._known: dict[str, Observer] = {}

    def views(self) -> Views:
        """By name: a view, or why there is none."""
        present = self.wanted or wireguard.interfaces()
        self._known = {name: self._known.get(name) or Observer(name) for name in present}
        return {name: _view(observer) for name, observer in self._known.items()}


def _view(observer: Observer) -> InterfaceView | PywgError:
    try:
        return observer.view()
    except PywgError as error:
        return error
