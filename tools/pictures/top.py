"""`pywg top` above a hub with five peers, four of which send and receive.

      hub: pywg up wg0                                one namespace for each peer
    +-------------------------+                     +---------------------------+
    |  iperf3 -- wg0          |       a cable       |       TUN of pywgd        |
    |  10.98.0.1    veth1..4 ======================== veth    10.98.0.2 ... 5   |
    +-------------------------+                     +---------------------------+

The view is pywg's own, run without a terminal; the picture is textual's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pywg.top.observe import Observers
from tools.lab import programs
from tools.lab.daemon import Daemon
from tools.lab.keys import Key, new_key
from tools.lab.lab import PORT, Lab
from tools.lab.namespaces import Namespace, cable
from tools.lab.seclusion import seclude
from tools.lab.waiting import wait_until

NAME = "wg0"
HUB = "10.98.0.1"
INTERVAL_S = 0.5
SIZE = (128, 13)


@dataclass(frozen=True)
class Friend:
    """A peer, and what iperf3 sends to it, or with ``-R`` from it, again and again: a second at
    each of these rates, in Mbit/s."""

    name: str
    rates: tuple[int, ...] = ()
    flags: str = ""


FRIENDS = (
    Friend("laptop", (200, 900, 600, 1200, 300)),
    Friend("office", (300, 260, 310), "-R"),
    Friend("backup", (20, 40, 60, 80, 100), "-R"),
    Friend("phone", (12, 1, 4)),
    Friend("old phone"),
)


def write(folder: Path, seconds: float) -> Path:
    """Looks for so long, then draws."""
    seclude()
    path = folder / "top.svg"
    with tempfile.TemporaryDirectory() as scratch:
        lab = Lab(Path(scratch))
        try:
            with hub(lab, Path(scratch)) as spaces, traffic(spaces):
                picture = asyncio.run(look(seconds))
        finally:
            lab.close()
    path.write_text(without_fonts(picture), encoding="utf-8")
    return path


@contextlib.contextmanager
def hub(lab: Lab, folder: Path) -> Iterator[list[Namespace]]:
    """The hub's namespace and those of the peers; the tunnel is up, and there are sessions."""
    home = lab.namespace("hub")
    keys = [new_key() for _ in FRIENDS]
    own = new_key()
    file = folder / f"{NAME}.conf"
    file.touch(0o600)
    file.write_text(_file(own, keys))
    _pywg(home, "up", str(file))
    try:
        friends = [
            _friend(lab, home, number, key, own) for number, key in enumerate(keys[:-1], start=1)
        ]
        for friend in friends:
            wait_until(partial(_has_session, friend, own), "a session")
        yield [home, *(friend.namespace for friend in friends)]
    finally:
        _pywg(home, "down", NAME)


def _friend(lab: Lab, home: Namespace, number: int, key: Key, hub_key: Key) -> Daemon:
    space = lab.namespace("peer")
    cable(
        (home, f"veth{number}", [f"192.0.2.{4 * number + 1}/30"]),
        (space, "veth", [f"192.0.2.{4 * number + 2}/30"]),
    )
    daemon = lab.daemon(programs.subject(), space, log_level="silent")
    daemon.setconf(
        f"[Interface]\nPrivateKey = {key.private}\nListenPort = {PORT}\n"
        f"[Peer]\nPublicKey = {hub_key.public}\nAllowedIPs = {HUB}/32\n"
        f"Endpoint = 192.0.2.{4 * number + 1}:{PORT}\nPersistentKeepalive = 5\n"
    )
    daemon.up(f"{_inner(number)}/24", mtu=1420)
    return daemon


def _has_session(friend: Daemon, hub_key: Key) -> bool:
    return int(friend.peer(hub_key.public)["handshake"]) > 0


def _inner(number: int) -> str:
    return f"10.98.0.{number + 1}"


def _file(own: Key, keys: list[Key]) -> str:
    peers = (
        f"[Peer]\n#!pywg Name = {friend.name}\nPublicKey = {key.public}\n"
        f"AllowedIPs = {_inner(number)}/32\n"
        for number, (friend, key) in enumerate(zip(FRIENDS, keys, strict=True), start=1)
    )
    head = f"[Interface]\nPrivateKey = {own.private}\nListenPort = {PORT}\nAddress = {HUB}/24\n"
    return head + "".join(peers)


def _pywg(space: Namespace, *arguments: str) -> None:
    space.run(sys.executable, "-m", "pywg", *arguments, cwd=programs.REPOSITORY)


@contextlib.contextmanager
def traffic(spaces: list[Namespace]) -> Iterator[None]:
    """As long as the block lasts."""
    home, *others = spaces
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with contextlib.ExitStack() as stack:
        for number, (space, friend) in enumerate(zip(others, FRIENDS, strict=False), start=1):
            address = _inner(number)
            server = ["iperf3", "--server", "--bind", address]
            rates = " ".join(map(str, friend.rates))
            again = (
                f"while :; do for rate in {rates}; do "
                f'iperf3 -c {address} -t 1 -b "$rate"M {friend.flags} || sleep 0.1; done; done'
            )
            for where, command in ((space, server), (home, ["sh", "-c", again])):
                stack.callback(_end, where.popen(command, start_new_session=True, **quiet))
        yield


def _end(process: subprocess.Popen[str]) -> None:
    """And what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


async def look(seconds: float) -> str:
    """SVG of what the view shows at the end."""
    from pywg.top.app import Top

    app = Top(Observers([NAME]).views, INTERVAL_S)
    async with app.run_test(size=SIZE):
        await asyncio.sleep(seconds)
        return app.export_screenshot(title=f"pywg top {NAME}")


def without_fonts(picture: str) -> str:
    """Nothing is fetched by who looks at it: the font of the reader's terminal will do."""
    return re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)
