"""Hands what happens to a device on to other processes: lines of JSON, by a socket of root's.

A thread of its own, which sleeps while nothing happens. The queue of the device is opened when the
first reader comes, so a tunnel that nobody listens to has none. Knows no file of a tunnel: what
people call a peer is for whoever reads.

Invariant: nobody waits for a reader. Each has room for ``WAITING`` lines; what finds no room is
lost for that reader, and counted.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from pywg.config import Endpoint
from pywg.errors import DeviceError
from pywg.keys import PublicKey
from pywg.native import event_json
from pywg.native.event_json import stamp, to_json
from pywg.native.event_stream import EventStream
from pywg.native.events import Event, EventsLost, HandshakeDone, InterfaceRemoved
from pywg.wireguard.status import PeerCounters

READERS, WAITING = 64, 1024
HANDED_OVER = event_json.HANDED_OVER
#: Until somebody who found no descriptor free is let in, in seconds.
PAUSE_S = 1.0
#: What readers have to take the last lines when the device ends, in seconds.
FAREWELL_S = 0.5


class Observed(Protocol):
    """What an Announcer needs of a Device."""

    def events(self) -> EventStream: ...

    def counters(self) -> dict[PublicKey, PeerCounters]: ...


class Reader:
    """One that reads, with its lines that wait."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self._waiting: deque[bytes] = deque()
        self._lost = 0

    def tell(self, line: bytes) -> None:
        if len(self._waiting) < WAITING:
            self._waiting.append(line)
        else:
            self._lost += 1

    def flush(self, lost: Callable[[int], bytes]) -> bool:
        """Writes what there is room for. ``lost`` makes the line that tells of a number of lines
        that were lost here. False when the reader has gone."""
        while self._waiting or self._lost:
            if not self._waiting:
                self._waiting.append(lost(self._lost))
                self._lost = 0
            line = self._waiting[0]
            try:
                sent = self.connection.send(line, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if sent < len(line):
                self._waiting[0] = line[sent:]
            else:
                self._waiting.popleft()
        return True

    @property
    def is_behind(self) -> bool:
        return bool(self._waiting or self._lost)


class Announcer:
    """``start`` makes a thread of ``run``, which ``stop`` ends; what happens in between is told."""

    def __init__(
        self,
        name: str,
        device: Observed,
        path: Path | None = None,
        given: Iterable[socket.socket] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Readers connect to ``path``; those ``given`` are connected. Raises OSError where there
        can be no socket."""
        self._name = name
        self._device = device
        self._path = path
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._stream: EventStream | None = None
        self._readers: list[Reader] = []
        self._selector = selectors.DefaultSelector()
        self._stopping = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._stopping, selectors.EVENT_READ)
        self._is_full = False  # no more descriptors to be had
        self._handed_over = False
        self._listening = None if path is None else _listen(path)
        if self._listening is not None:
            self._selector.register(self._listening, selectors.EVENT_READ)
        for connection in given:
            self._add(connection)

    def start(self) -> None:
        """A thread for ``run``."""
        self._thread = threading.Thread(target=self.run, name="pywg events", daemon=True)
        self._thread.start()

    def stop(self, *, handed_over: bool = False) -> None:
        """Waits a moment, so that the last events are told. With ``handed_over`` the last of them
        says so, and the path is that of the process which listens there now."""
        self._handed_over = handed_over
        if self._thread is not None:
            with contextlib.suppress(OSError):  # it has ended
                os.eventfd_write(self._stopping, 1)
            self._thread.join(2 * FAREWELL_S)

    def run(self) -> None:
        try:
            while self._turn():
                pass
        finally:
            self._close()

    def _turn(self) -> bool:
        """Until something has happened. False when it was the end."""
        found = self._selector.select(PAUSE_S if self._is_full else None)
        self._listen_again()
        for key, mask in found:
            if key.fileobj == self._stopping:
                return self._end()
            if key.fileobj is self._listening:
                self._accept()
            elif key.data is not None and mask & selectors.EVENT_READ:
                self._remove(key.data)  # readers say nothing: this is their end
        return self._pass_on() or self._end()

    def _pass_on(self) -> bool:
        """What waits in the device's queue. False when nothing will come any more."""
        is_open = True
        if self._stream is not None:
            events, is_open = self._take(self._stream)
            for line in self._lines(events):
                for reader in self._readers:
                    reader.tell(line)
        for reader in list(self._readers):
            if not reader.flush(self._lost):
                self._remove(reader)
            else:
                self._wait_for(reader)
        return is_open

    def _take(self, stream: EventStream) -> tuple[list[Event], bool]:
        events: list[Event] = []
        while (event := stream.take()) is not None:
            events.append(event)
            if isinstance(event, InterfaceRemoved):
                break
        if stream.is_closed:
            self._selector.unregister(self._readable)
            self._stream = None
            return events, False
        return events, True

    def _lines(self, events: list[Event]) -> list[bytes]:
        """With the endpoint of a peer that has shaken hands; asked for once for them all."""
        now = self._clock()
        endpoints: dict[PublicKey, Endpoint | None] = {}
        if any(isinstance(event, HandshakeDone) for event in events):
            with contextlib.suppress(DeviceError):
                endpoints = {key: one.endpoint for key, one in self._device.counters().items()}
        lines = []
        for event in events:
            endpoint = endpoints.get(event.public_key) if isinstance(event, HandshakeDone) else None
            shown = "" if endpoint is None else str(endpoint)
            lines.append(_line(to_json(event, self._name, now, endpoint=shown)))
        return lines

    def _lost(self, count: int) -> bytes:
        return _line(to_json(EventsLost(count), self._name, self._clock()))

    # ---- readers

    def _accept(self) -> None:
        assert self._listening is not None  # noqa: S101
        try:
            connection, _ = self._listening.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._selector.unregister(self._listening)  # it would be ready all the time
                self._is_full = True
            return
        if len(self._readers) >= READERS or not _is_trusted(connection):
            connection.close()
        else:
            self._add(connection)

    def _listen_again(self) -> None:
        if self._is_full and self._listening is not None:
            self._is_full = False
            self._selector.register(self._listening, selectors.EVENT_READ)

    def _add(self, connection: socket.socket) -> None:
        if self._stream is None:
            try:
                self._stream = self._device.events()
            except DeviceError:
                connection.close()
                return
            self._readable = self._stream.fileno()
            self._selector.register(self._readable, selectors.EVENT_READ)
        reader = Reader(connection)
        reader.tell(b"\n")  # from now on nothing is missed
        self._readers.append(reader)
        self._selector.register(connection, selectors.EVENT_READ, reader)

    def _wait_for(self, reader: Reader) -> None:
        both = selectors.EVENT_READ | selectors.EVENT_WRITE
        events = both if reader.is_behind else selectors.EVENT_READ
        self._selector.modify(reader.connection, events, reader)

    def _remove(self, reader: Reader) -> None:
        if reader in self._readers:
            self._readers.remove(reader)
            self._selector.unregister(reader.connection)
            reader.connection.close()

    # ---- the end

    def _end(self) -> bool:
        """The last lines, for a moment. Always False."""
        self._pass_on_if_open()
        if self._handed_over:
            now = stamp(self._clock())
            line = _line({"time": now, "interface": self._name, "event": HANDED_OVER})
            for reader in self._readers:
                reader.tell(line)
        limit = time.monotonic() + FAREWELL_S
        for reader in self._readers:
            while reader.flush(self._lost) and reader.is_behind and time.monotonic() < limit:
                time.sleep(0.01)
        return False

    def _pass_on_if_open(self) -> None:
        if self._stream is not None:
            self._pass_on()

    def _close(self) -> None:
        for reader in self._readers:
            reader.connection.close()
        if self._listening is not None and self._path is not None:
            self._listening.close()
            if not self._handed_over:
                self._path.unlink(missing_ok=True)
        if self._stream is not None:
            self._stream.close()
        self._selector.close()


def _line(told: dict[str, object]) -> bytes:
    return json.dumps(told, ensure_ascii=False).encode("utf-8") + b"\n"


def _listen(path: Path) -> socket.socket:
    """Root's alone. A file that a killed process has left makes way."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(os.fspath(path))
        path.chmod(0o600)
        listening.listen(8)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def _is_trusted(connection: socket.socket) -> bool:
    """Root, or whoever we are."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    _, uid, _ = struct.unpack("=iII", credentials)
    return uid in (0, os.geteuid())
