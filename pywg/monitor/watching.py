"""Events of interfaces, whoever serves them, as objects of JSON with the names of peers.

A tunnel of `pywg up` tells what happens, by a socket of root's; any other interface is looked at
every second. Each is watched by a thread of its own, which puts what it hears into one queue.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pywg import wireguard
from pywg.errors import NetworkError, PywgError, UapiError
from pywg.keys import PublicKey
from pywg.monitor.gathering import Names, present
from pywg.monitor.polling import Looks
from pywg.native.event_json import HANDED_OVER, kind_of, to_json
from pywg.native.events import Event, InterfaceRemoved
from pywg.tunnel import record

PROBE_S = 1.0
GREETING_S = 5.0
AGAIN_S = 0.02
#: Looks that fail before an interface is taken to be gone.
FAILURES = 3
REMOVED = kind_of(InterfaceRemoved)

Told = dict[str, Any]
Tell = Callable[[Told], None]


def connected(name: str) -> socket.socket | None:
    """The socket by which the tunnel tells what happens; None where it has none."""
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.settimeout(GREETING_S)
    try:
        stream.connect(str(record.events_of(name)))
        if stream.recv(1) != b"\n":  # as it says that nothing is missed from now on
            raise ConnectionRefusedError
    except OSError:
        stream.close()
        return None
    stream.settimeout(None)
    return stream


def next_one(name: str) -> socket.socket | None:
    """The socket of the process that has taken the tunnel over, which may yet have to listen."""
    limit = time.monotonic() + GREETING_S
    while (stream := connected(name)) is None and time.monotonic() < limit:
        time.sleep(AGAIN_S)
    return stream


class Watch:
    """``events`` gives what happens to ``wanted``, or to all there are and will be."""

    def __init__(self, wanted: Sequence[str] = ()) -> None:
        self._wanted = tuple(wanted)
        self._names = Names()
        self._watched: set[str] = set()
        self._queue: queue.SimpleQueue[tuple[str, Told | None]] = queue.SimpleQueue()

    def open(self) -> None:
        """From now on nothing is missed. Raises UapiError or NetworkError for one of ``wanted``
        that is not there, or not for us."""
        for name in self._wanted:
            self._begin(name, must_be_there=True)
        if not self._wanted:
            self._begin_new()

    def events(self) -> Iterator[Told]:
        """Ends when all of ``wanted`` have ended."""
        due = time.monotonic() + PROBE_S
        while self._watched or not self._wanted:
            if not self._wanted and time.monotonic() >= due:
                self._begin_new()
                due = time.monotonic() + PROBE_S
            try:
                name, told = self._queue.get(timeout=None if self._wanted else PROBE_S)
            except queue.Empty:
                continue
            if told is None:
                self._watched.discard(name)
            else:
                yield named(told, self._names)

    def _begin_new(self) -> None:
        for name in present():
            if name not in self._watched:
                self._begin(name, must_be_there=False)

    def _begin(self, name: str, *, must_be_there: bool) -> None:
        stream = connected(name)
        looks = Looks()
        if stream is None:
            try:
                looks.events(wireguard.get(name), time.monotonic())
            except (UapiError, NetworkError):
                if must_be_there:
                    raise
                return
        self._watched.add(name)

        def work() -> None:
            try:
                if stream is None:
                    self._look(name, looks)
                else:
                    self._listen(name, stream)
            finally:
                self._queue.put((name, None))

        threading.Thread(target=work, name=f"pywg events {name}", daemon=True).start()

    def _listen(self, name: str, stream: socket.socket) -> None:
        """The end of the process is the end of the interface, whether or not it could say so;
        unless it says that another one goes on."""
        going_on: socket.socket | None = stream
        last = ""
        while going_on is not None:
            last = self._hear(name, going_on)
            going_on = next_one(name) if last == HANDED_OVER else None
        if last != REMOVED:
            self._put(name, InterfaceRemoved())

    def _hear(self, name: str, stream: socket.socket) -> str:
        """Until its end; the kind of the last event."""
        last = ""
        # A process that was killed may reset it.
        with stream, stream.makefile("rb") as lines, contextlib.suppress(ConnectionResetError):
            for line in lines:
                told = json.loads(line)
                last = told["event"]
                if last != HANDED_OVER:
                    self._queue.put((name, told))
        return last

    def _look(self, name: str, looks: Looks) -> None:
        failures = 0
        while failures < FAILURES:
            time.sleep(PROBE_S)
            try:
                status = wireguard.get(name)
            except (UapiError, NetworkError):
                failures += 1
                continue
            failures = 0
            for event in looks.events(status, time.monotonic()):
                self._put(name, event)
        self._put(name, InterfaceRemoved())

    def _put(self, name: str, event: Event) -> None:
        self._queue.put((name, to_json(event, name, time.time())))


def named(told: Told, names: Names) -> Told:
    """With the name of the peer behind its key, if it has one."""
    try:
        name = names.of(told["interface"]).get(PublicKey.from_base64(told["peer"]), "")
    except (KeyError, PywgError):
        return told
    if not name:
        return told
    shown: Told = {}
    for key, value in told.items():
        shown[key] = value
        if key == "peer":
            shown["name"] = name
    return shown
