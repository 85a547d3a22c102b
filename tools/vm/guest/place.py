"""The addresses, keys and files of the guest's tunnels, and what every case asks of them."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import NamedTuple

from tools.lab.namespaces import run
from tools.lab.waiting import wait_until

TUNNELS = 3
UPLINK = "up0"
NEAR, FAR = "192.0.2.1", "192.0.2.2"
KEYS = Path("/var/lib/pywg-vm/keys.json")
CONFIGS = Path("/etc/wireguard")
PATIENCE = 60  # seconds: two processors that are emulated, perhaps on a busy machine
EVERY = 0.3


class Skipped(Exception):
    """The guest's parts cannot show it; the text says why."""


class Keys(NamedTuple):
    near_private: str
    near_public: str
    far_private: str
    far_public: str


def keys(number: int) -> Keys:
    stored = json.loads(KEYS.read_text())
    return Keys(*stored[2 * number], *stored[2 * number + 1])


def write_config(number: int, *lines: str, allowed: str = "", more: str = "") -> Path:
    """The file of wgN. ``lines``: further ones of [Interface]; ``more``: of [Peer]."""
    own = keys(number)
    text = [
        "[Interface]",
        f"PrivateKey = {own.near_private}",
        f"Address = 10.99.{number}.1/24, fd99:{number}::1/64",
        *lines,
        "[Peer]",
        f"PublicKey = {own.far_public}",
        f"Endpoint = {FAR}:{51820 + number}",
        f"AllowedIPs = {allowed or f'10.99.{number}.0/24, fd99:{number}::/64'}",
        more,
    ]
    path = CONFIGS / f"wg{number}.conf"
    path.touch(0o600)
    path.write_text("\n".join(line for line in text if line) + "\n")
    return path


def systemctl(*arguments: str, check: bool = True) -> str:
    return run("systemctl", *arguments, check=check, timeout=2 * PATIENCE).strip()


def unit(number: int) -> str:
    return f"pywg@wg{number}.service"


def is_active(service: str) -> bool:
    return systemctl("is-active", service, check=False) == "active"


def check_traffic(number: int) -> None:
    """Echoes come back over the tunnel: the first may have to wait for a handshake."""
    for address in (f"10.99.{number}.2", f"fd99:{number}::2"):
        is_answered = functools.partial(echoes, address, 1)
        wait_until(is_answered, f"an echo of {address}", PATIENCE, EVERY)
        assert echoes(address, 3), f"echoes of {address} were lost"


def echoes(address: str, count: int) -> bool:
    said = run("ping", "-n", "-q", "-c", str(count), "-i", "0.2", "-W", "5", address, check=False)
    return f"{count} received" in said


def handshake(number: int) -> int:
    """Seconds since 1970 of the last one, or 0."""
    return int(run("wg", "show", f"wg{number}", "latest-handshakes").split()[-1])


def keepalive(number: int) -> str:
    """By wg, which starts faster than Python where a processor is emulated."""
    return run("wg", "show", f"wg{number}", "persistent-keepalive").split()[-1]


def settle(number: int) -> None:
    """The tunnel as a service, whatever a case before left."""
    if not is_active(unit(number)):
        write_config(number)
        systemctl("restart", unit(number))
    check_traffic(number)


def interface_is_there(name: str) -> bool:
    return Path(f"/sys/class/net/{name}").exists()
