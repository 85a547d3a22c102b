"""OnPeerUp, OnPeerDown, OnEndpointChange: commands of the file, when something happens to a peer.

In a process of its own beside the one that hosts the tunnel, which sends it what happens and waits
for nothing: forked before there were keys, threads and blocked signals, so that a hook is run as
PostUp is. One command at a time, each for ``LIMIT_S`` at most. The file is read again when it has
changed, and judged again: as with PreDown, it is the file of that moment that counts.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

from pywg.config import Config, comments, read
from pywg.config.model import InterfaceSection
from pywg.errors import PywgError
from pywg.host import hooks, netns
from pywg.plan.facts import Location
from pywg.service.announcer import HANDED_OVER
from pywg.service.supervisor import Listener, Log
from pywg.tunnel import record
from pywg.tunnel.agenda import Agenda, Job
from pywg.tunnel.names import file_of

#: What one command may take, in seconds.
LIMIT_S = 30.0
_BUFFER = 1 << 16


def listener(name: str, config: Config, location: Location) -> Listener | None:
    """None for a file without such hooks: then there is no process for them either."""
    section = config.interface
    if not (section.on_peer_up or section.on_peer_down or section.on_endpoint_change):
        return None
    return listening(name, location)


def listening(name: str, location: Location, *, goes_on: bool = False) -> Listener:
    """For a file that had such hooks when its tunnel came up; ``goes_on`` where another process
    ends."""

    def listen(events: socket.socket, log: Log) -> None:
        if location.netns is not None:
            netns.enter(location.netns)
        told = Told(name)
        if not goes_on:
            told.forget()
        Runner(name, events, log, File(name, log).commands, told=told).run()

    return listen


class Told:
    """Peers that a hook was told are up, in a file: the process of the next version goes on from
    there, when that of this one has done what was to do."""

    def __init__(self, name: str) -> None:
        self._path = record.told_of(name)
        self._file: TextIO | None = None

    def forget(self) -> None:
        """What a tunnel of this name that is gone has left."""
        self._path.unlink(missing_ok=True)

    def begin(self) -> list[str]:
        """Waits for whoever has it; peers, in the order they came up."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._file = os.fdopen(descriptor, "r+")
        up: dict[str, None] = {}
        for line in self._file:
            sign, peer = line[:1], line[1:].rstrip("\n")
            if sign == "+":
                up[peer] = None
            else:
                up.pop(peer, None)
        return list(up)

    def end(self) -> None:
        """The next one may go on."""
        if self._file is not None:
            self._file.close()

    def note(self, job: Job) -> None:
        if self._file is not None and job.kind != "endpoint":
            self._file.write(f"{'+' if job.kind == 'up' else '-'}{job.peer}\n")
            self._file.flush()


@dataclass(frozen=True, slots=True)
class Command:
    """``text`` has no %i left."""

    text: str
    path: str
    environment: dict[str, str]


class File:
    """The file of a tunnel, read again when it has changed."""

    def __init__(self, name: str, log: Log) -> None:
        self._name = name
        self._log = log
        self._stamp: tuple[object, ...] = ()
        self._config: Config | None = None
        self._names: dict[str, str] = {}
        self._failure = ""

    def commands(self, job: Job) -> list[Command]:
        """What is to be run; none from a file that is not to be trusted, which is told once."""
        config = self._current()
        if config is None:
            return []
        environment = {
            "PEER": job.peer,
            "PEER_NAME": self._names.get(job.peer, ""),
            "ENDPOINT": job.endpoint,
        }
        return [
            Command(text.replace("%i", self._name), config.path, environment)
            for text in texts(config.interface, job)
        ]

    def _current(self) -> Config | None:
        try:
            path = file_of(self._name).absolute()
            found = path.stat()
            stamp = (path, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            if stamp != self._stamp:
                self._stamp, self._config = stamp, None
                config = Config.load(path)
                hooks.check_trust(config)
                # A peer that is removed is told of when it is not in the file any more.
                called = comments.names(read(path), config)
                self._names |= {str(key): name for key, name in called.items()}
                self._config, self._failure = config, ""
        except (PywgError, OSError) as error:
            self._config = None
            if str(error) != self._failure:
                self._failure = str(error)
                self._log(f"no hook is run: {error}")
        return self._config


def texts(section: InterfaceSection, job: Job) -> tuple[str, ...]:
    match job.kind:
        case "up":
            return section.on_peer_up
        case "down":
            return section.on_peer_down
        case "endpoint":
            return section.on_endpoint_change


class Runner:
    """Reads events, and runs what ``commands`` makes of a job."""

    def __init__(
        self,
        name: str,
        events: socket.socket,
        log: Log,
        commands: Callable[[Job], list[Command]],
        limit_s: float = LIMIT_S,
        *,
        told: Told | None = None,
    ) -> None:
        self._name = name
        self._events = events
        self._log = log
        self._commands = commands
        self._limit_s = limit_s
        self._agenda = Agenda()
        self._told = told
        self._has_begun = told is None
        self._is_handed_over = False
        self._waiting: deque[Command] = deque()  # of the job that is being done
        self._unread = b""

    def run(self) -> None:
        """Until the other end is closed; a command that runs then has its time. All that waits has
        its time where the tunnel goes on in another process, which hears of it no more."""
        is_open = True
        try:
            while is_open or self._is_handed_over:
                command = self._next()
                if command is not None:
                    is_open = self._do(command) and is_open
                elif is_open:
                    is_open = self._read()
                else:
                    return
        finally:
            if self._told is not None:
                self._told.end()

    def _next(self) -> Command | None:
        while not self._waiting:
            job = self._agenda.take()
            if job is None:
                return None
            if self._told is not None:
                self._told.note(job)
            self._waiting.extend(self._commands(job))
        return self._waiting.popleft()

    def _read(self) -> bool:
        """Waits for what comes. False at the end."""
        try:
            data = self._events.recv(_BUFFER)
        except OSError:
            return False
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in filter(None, lines):
            self._note(json.loads(line))
        return bool(data)

    def _note(self, event: dict[str, Any]) -> None:
        if not self._has_begun and self._told is not None:
            # Not before: whoever hosts the tunnel now may not have been told that it is to end.
            self._has_begun = True
            self._agenda = Agenda(self._told.begin())
        self._is_handed_over |= event.get("event") == HANDED_OVER
        self._agenda.note(event)

    def _do(self, command: Command) -> bool:
        """One command to its end, while events are read. False when there will be no more."""
        try:
            process = hooks.start(command.text, self._name, command.path, command.environment)
        except PywgError as error:
            self._log(str(error))
            return True
        ended = os.pidfd_open(process.pid)
        try:
            return self._wait(process, ended, command)
        finally:
            os.close(ended)

    def _wait(self, process: hooks.Process, ended: int, command: Command) -> bool:
        is_open = True
        limit = time.monotonic() + self._limit_s
        while True:
            sources = [ended, self._events.fileno()] if is_open else [ended]
            ready = select.select(sources, [], [], max(0, limit - time.monotonic()))[0]
            if self._events.fileno() in ready:
                is_open = self._read()
            if ended in ready:
                code = process.wait()
                if code != 0:
                    self._log(f"hook failed with {hooks.ending(code)}: {command.text}")
                return is_open
            if time.monotonic() >= limit:
                hooks.end(process)
                self._log(f"hook was ended after {self._limit_s:g} s: {command.text}")
                return is_open
