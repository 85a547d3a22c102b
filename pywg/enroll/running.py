"""What a server's file says now, for the tunnel that runs; sessions of others go on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pywg.config import Config, Endpoint
from pywg.enroll.server import Server
from pywg.errors import NetworkError, PywgError, UapiError
from pywg.keys import PublicKey
from pywg.wireguard import socket as uapi_socket
from pywg.wireguard.changes import Changes
from pywg.wireguard.status import PeerStatus

if TYPE_CHECKING:
    from pywg.tunnel.trace import Reporter  # which brings all of that room with it

LOOK_EVERY_SECONDS = 0.05


def apply(server: Server, changes: Changes, reporter: Reporter) -> None:
    """A tunnel of `pywg up` becomes what its file says; another gets the changes alone, and no
    routes. Raises PywgError if it does not run, or runs from another file."""
    from pywg import tunnel, wireguard
    from pywg.tunnel import record
    from pywg.tunnel.running import check_here, is_alive

    found = record.read(server.name)
    if found is not None:
        if Path(found.file).resolve() != server.path.resolve():
            raise PywgError(f"{server.name} runs from another file: {found.file}")
        tunnel.reload(server.name, Config.load(server.path), reporter=reporter)
        return
    if not is_alive(server.name, tunnel.Location()):
        raise PywgError(f"{server.name} does not run: leave --apply out, or first: pywg up")
    check_here(server.name)
    reporter.doing(f"wg set {server.name} peer ...")
    wireguard.change(server.name, changes)


def is_there(name: str) -> bool:
    """Whether a userspace interface of this name runs."""
    return uapi_socket.is_alive(name)


def status(name: str) -> dict[PublicKey, PeerStatus]:
    """What a running interface knows of its peers; nothing if it does not run, or not for us."""
    from pywg import wireguard

    try:
        return {peer.public_key: peer for peer in wireguard.get(name).peers}
    except (UapiError, NetworkError):
        return {}


def wait_until_heard(name: str, key: PublicKey, wait_s: float | None) -> Endpoint:
    """Where a peer is, as soon as it has begun a handshake from there, whether or not that can end.
    Raises PywgError after ``wait_s``."""
    from pywg import wireguard

    until = None if wait_s is None else time.monotonic() + wait_s
    while True:
        peer = next((one for one in wireguard.get(name).peers if one.public_key == key), None)
        if peer is None:
            raise PywgError(f"{name} runs without the next key: pywg reload {name}")
        if peer.endpoint is not None:
            return peer.endpoint
        if until is not None and time.monotonic() >= until:
            raise PywgError(
                f"{name}: nothing has come with the new key yet; the old one is as good as before"
            )
        time.sleep(LOOK_EVERY_SECONDS)
