"""What the tunnel is measured beside, between the same two nodes: the bare cable, and wireguard-go
where it is installed.

wireguard-go keeps its socket in /var/run/wireguard, and so it runs in a mount namespace of its own:
nothing of the host is touched, and nothing is left.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean
from typing import Any

from pywg.config import Config
from pywg.demo.process import Channel, Child, Refused, enter_network, start, unshare
from pywg.errors import PywgError, UapiError
from pywg.host import processes, programs
from pywg.wireguard import socket as uapi_socket
from pywg.wireguard.changes import of_config

BARE = "bare veth"
OTHER = "wireguard-go"
INTERFACE = "wg1"
START_TIMEOUT_S = 5.0
_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 16384, 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


def program() -> str | None:
    """Its path, where it is installed."""
    return shutil.which(OTHER)


def notes(names: Iterable[str]) -> dict[str, str]:
    """What is to be said of each: a reader may not know the word, and versions differ."""
    found = {BARE: "the cable without any tunnel", OTHER: _version()}
    return {name: found[name] for name in names if found[name]}


def _version() -> str:
    command = program()
    said = programs.output([command, "--version"]) if command else ""
    number = re.search(r"\bv?\d+(\.\d+)+\S*", said)
    return number[0] if number else ""


def host(command: str, pid: int, config: Config, set_up: Callable[[], None]) -> Child:
    """wireguard-go in the network namespace of a node, configured; ``set_up`` gives its interface
    addresses. It ends with the child."""
    return Child(lambda channel: _host(channel, command, pid, config, set_up))


def _host(
    channel: Channel, command: str, pid: int, config: Config, set_up: Callable[[], None]
) -> None:
    enter_network(pid)
    _own_run()
    daemon = start([command, "--foreground", INTERFACE])
    try:
        _configure(daemon, config)
        set_up()
        channel.send({"up": OTHER})
        while channel.receive() is not None:
            channel.send({"seconds": (processes.cpu_ns(daemon.pid) or 0) / 1e9})
    finally:
        daemon.kill()
        daemon.wait()


def _own_run() -> None:
    """/run as nobody else sees it."""
    try:
        unshare(_CLONE_NEWNS)
    except OSError as error:
        raise Refused(f"no mount namespace: {os.strerror(error.errno or 0)}") from None
    run = os.fsencode(Path("/var/run").resolve())
    for source, target, kind, flags in (
        (None, b"/", None, _MS_REC | _MS_PRIVATE),
        (b"pywg-demo", run, b"tmpfs", 0),
    ):
        if _libc.mount(source, target, kind, ctypes.c_ulong(flags), None) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise Refused(f"nothing can be mounted on {os.fsdecode(target)}: {reason}")
    uapi_socket.SOCKET_DIRECTORY.mkdir(mode=0o700)


def _configure(daemon: programs.Process, config: Config) -> None:
    limit = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            return uapi_socket.change(INTERFACE, of_config(config))
        except UapiError:
            if daemon.poll() is not None or time.monotonic() > limit:
                raise PywgError(f"{OTHER} does not start") from None
            time.sleep(0.01)


def speed(transfers: list[dict[str, Any]]) -> float:
    """Mbit/s, the mean of both directions."""
    return mean(float(one["mbit_per_s"]) for one in transfers)
