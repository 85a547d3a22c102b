"""Lines of a tunnel's log: as text, as JSON, or as fields of systemd's journal.

``text_of``, ``json_of`` and ``journal_of`` are plain functions. Knows where lines go, not why they
are written. Invariant: nobody waits for whoever reads them, and no line shows a key.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import socket
import syslog
import threading
import time
from collections.abc import Callable
from typing import Literal

from pywg.errors import hide_keys
from pywg.native.event_json import stamp
from pywg.native.options import LogLevel

LogFormat = Literal["text", "json"]
JOURNAL = "/run/systemd/journal/socket"
#: As syslog(3): a warning, and what is only for information.
_PRIORITIES = {LogLevel.ERROR: syslog.LOG_WARNING, LogLevel.VERBOSE: syslog.LOG_INFO}
#: Characters; as JSON they are still less than a pipe takes at once.
LINE_MAX = 600
# As a line names a peer: its public key, or the beginning of it.
_PEER = re.compile(r"\bpeer ([A-Za-z0-9+/]{43}=|[A-Za-z0-9+/]{4}…)")


def text_of(name: str, line: str) -> str:
    return f"pywg: {name}: {line}"


def json_of(name: str, line: str, level: LogLevel, time_s: float) -> str:
    """One object: ``time`` (RFC 3339), ``level`` (``error`` or ``verbose``: the least LOG_LEVEL
    that has it), ``interface``, ``message``, and ``peer`` where the line names one."""
    told = {
        "time": stamp(time_s),
        "level": level.name.lower(),
        "interface": name,
        "message": line,
    }
    if peer := _PEER.search(line):
        told["peer"] = peer[1]
    return json.dumps(told, ensure_ascii=False)


def journal_of(name: str, line: str, level: LogLevel) -> bytes:
    """A datagram of systemd's native journal protocol: a field a line."""
    told = {
        "MESSAGE": f"{name}: {line}",
        "PRIORITY": str(_PRIORITIES.get(level, syslog.LOG_INFO)),
        "SYSLOG_IDENTIFIER": "pywg",
        "PYWG_INTERFACE": name,
    }
    if peer := _PEER.search(line):
        told["PYWG_PEER"] = peer[1]
    return "".join(f"{key}={' '.join(value.splitlines())}\n" for key, value in told.items()).encode(
        "utf-8", "replace"
    )


def leads_to_journal(fd: int) -> bool:
    """Whether systemd has connected this descriptor with its journal (systemd.exec(5))."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


def to_journal(datagram: bytes) -> bool:
    """False where there is no journal, or it has no room now."""
    with contextlib.suppress(OSError):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as journal:
            journal.sendto(datagram, JOURNAL)
        return True
    return False


class Writer:
    """Where the lines of one tunnel go: to ``fd``, or to the system's log for -1. Any thread may
    write."""

    def __init__(self, name: str, fd: int, log_format: LogFormat) -> None:
        self._name = name
        self._fd = fd
        self._is_json = log_format == "json"
        self._is_journal = fd >= 0 and not self._is_json and leads_to_journal(fd)

    @property
    def is_plain(self) -> bool:
        """Whether what the core writes may go to the descriptor as it is."""
        return self._fd >= 0 and not (self._is_json or self._is_journal)

    def write(self, line: str, level: LogLevel) -> None:
        line = hide_keys(line)[:LINE_MAX]
        if self._fd < 0 or self._is_journal:
            self._to_system(line, level)
        elif self._is_json:
            write_line(self._fd, json_of(self._name, line, level, time.time()))
        else:
            write_line(self._fd, text_of(self._name, line))

    def _to_system(self, line: str, level: LogLevel) -> None:
        if to_journal(journal_of(self._name, line, level)):
            return
        if self._fd >= 0:
            write_line(self._fd, text_of(self._name, line))
            return
        syslog.openlog("pywg", syslog.LOG_PID, syslog.LOG_DAEMON)
        syslog.syslog(_PRIORITIES.get(level, syslog.LOG_INFO), f"{self._name}: {line}")


class Relay:
    """What the core is to write to: a pipe whose lines go on through a Writer, from ``start`` on.
    ``close`` when the core has ended."""

    def __init__(self, name: str, write: Callable[[str], None]) -> None:
        self._prefix = text_of(name, "")
        self._write = write
        reading, self.fd = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(
            target=self._run, args=(reading,), name="pywg log", daemon=True
        )

    def start(self) -> None:
        """In a thread that has no more capabilities than its maker has by now. What was written
        before waits in the pipe."""
        self._thread.start()

    def _run(self, reading: int) -> None:
        with open(reading, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                self._write(line.rstrip("\n").removeprefix(self._prefix))

    def close(self) -> None:
        if not self._thread.ident:
            self._thread.start()  # why there was nothing to start is in the pipe
        os.close(self.fd)
        self._thread.join(1.0)


def write_line(fd: int, line: str) -> None:
    """Lost rather than waited for, where nobody reads: as the core's own lines. A pipe that takes
    anything takes PIPE_BUF bytes (pipe(7)), so no line is longer."""
    data = line.encode("utf-8", "replace")[: select.PIPE_BUF - 1] + b"\n"
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    with contextlib.suppress(OSError):
        if any(event & select.POLLOUT for _, event in poller.poll(0)):
            os.write(fd, data)
