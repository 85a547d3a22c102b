"""``Peers``: the process beside a tunnel that follows a store of peers, and what it is given.

It begins when the interface has its own peers and its key, ends with the tunnel, and reads the file
again when a reload has written that down.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pywg.config import Config, parse, peer_source, read
from pywg.config.model import PeerSource
from pywg.config.values import BadValue
from pywg.errors import PywgError
from pywg.host import lock
from pywg.host.inotify import Notifier
from pywg.plan.facts import Location
from pywg.service import capabilities
from pywg.service.supervisor import Follower as Follows
from pywg.service.supervisor import Log
from pywg.tunnel import record
from pywg.wireguard import socket as uapi_socket

if TYPE_CHECKING:  # only a tunnel that follows a store loads what that takes, HTTP and TLS too
    from pywg.sources.cover import Cover
    from pywg.sources.follower import Follower
    from pywg.sources.merge import Static
    from pywg.sources.news import Store


class Start:
    """A pipe from `up` to the follower: a byte when the interface is set up, nothing but the end if
    it never is."""

    def __init__(self) -> None:
        self.reading, self._writing = os.pipe2(os.O_CLOEXEC)

    def give(self) -> None:
        os.write(self._writing, b"1")

    def close(self) -> None:
        os.close(self.reading)
        os.close(self._writing)

    def wait(self) -> bool:
        """For the follower."""
        return os.read(self.reading, 1) == b"1"


def check(config: Config, location: Location) -> None:
    """Raises PywgError where a source cannot be followed from the start."""
    source = config.interface.peers_from
    if source is None:
        return
    if location.backend == "kernel":
        raise PywgError(
            "Peers is for a userspace interface: with the kernel's driver no process stays that "
            "could follow a store"
        )
    if source.fernet is not None:
        from pywg.sources import preshared

        preshared.check_installed()
    _store(source)


def following(config: Config, source: str) -> Config:
    """With the source that a record names, whether the file says so or `up` was told."""
    try:
        found = peer_source.parse(source)
    except BadValue as error:
        raise PywgError(f"the source of peers in the record, {source}: {error}") from None
    return replace(config, interface=replace(config.interface, peers_from=found))


def follower(name: str, config: Config, start: Start, *, goes_on: bool = False) -> Follows | None:
    """None for a file without a source. ``goes_on``: another follower was there before."""
    source = config.interface.peers_from
    if source is None:
        return None

    def follow(ended: socket.socket, log: Log) -> None:
        from pywg.sources import preshared
        from pywg.sources.cache import Cache, path_of
        from pywg.sources.follower import Around, Follower

        capabilities.keep_only(0)
        threading.Thread(target=_end_with, args=(ended,), name="pywg end", daemon=True).start()
        keys = preshared.PresharedKeys(Path(config.path).absolute().parent, source.fernet)
        around = Around(
            give=lambda changes: uapi_socket.change(name, changes),
            preshared=keys.of,
            own=lambda: _own(name, config),
            log=log,
            state=record.peers_of(name),
            empties=source.kind != "etcd",
        )
        made = Follower(source.text, _store(source), Cache(path_of(name), source.text), around)
        made.listen()
        if not start.wait():
            return
        if goes_on:
            made.go_on()
        threading.Thread(
            target=_tell_of_reloads, args=(name, made), name="pywg reloads", daemon=True
        ).start()
        made.run()

    return follow


def _store(source: PeerSource) -> Store:
    """Raises PywgError for certificates that cannot be used."""
    match source.kind:
        case "folder":
            from pywg.sources.folder import Folder

            return Folder(Path(source.place), source.interval_s)
        case "url":
            from pywg.sources.url import Url

            return Url(source)
        case "etcd":
            from pywg.sources.etcd import Etcd

            return Etcd(source)


def _end_with(ended: socket.socket) -> None:
    """The tunnel is gone when the other end is."""
    while ended.recv(1 << 16):
        pass
    os._exit(0)


def _own(name: str, config: Config) -> tuple[Static, Cover | None]:
    """By the file, when nobody is carrying out what it says."""
    from pywg.sources.cover import Cover
    from pywg.sources.merge import Static

    with lock.held(lambda line: None):
        path = record.file_of(name)
    if path is not None:
        config = parse(read(path), str(path))
    return Static.of(config.peers), Cover.of(config)


def _tell_of_reloads(name: str, follower: Follower) -> None:
    """A reload writes the record anew, as others do who change nothing for us."""
    notifier = Notifier()
    notifier.add(record.DIRECTORY)
    version = record.version(name)
    mine = os.fsencode(record.path_of(name).name)
    while True:
        select.select([notifier], [], [])
        if notifier.drain() & {mine, b""} and record.version(name) != version:
            version = record.version(name)
            follower.reread()
