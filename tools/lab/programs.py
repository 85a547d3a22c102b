"""The daemon under test and its peers: where they are and how they are started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tools.lab.namespaces import Namespace

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("PYWG_PEERS", Path.home() / ".cache" / "pywg-peers")) / "bin"


@dataclass(frozen=True)
class Program:
    """A WireGuard daemon. `pywgd` decides whether the promises that only pywg makes are asked
    for."""

    label: str
    path: str
    arguments: tuple[str, ...] = ("-f",)

    @property
    def is_pywgd(self) -> bool:
        return Path(self.path).name.startswith("pywgd")


class Missing(Exception):
    """A program is not on this machine; the text says how to get it."""


def subject() -> Program:
    """The daemon under test: $PYWGD, or the one built in this repository. Any daemon with
    wireguard-go's command line can stand in, which is how the tests themselves are tested."""
    wanted = os.environ.get("PYWGD")
    if wanted:
        found = shutil.which(wanted)
        if found is None:
            raise Missing(f"PYWGD={wanted} is no program")
        return Program("pywgd" if Path(found).name.startswith("pywgd") else Path(found).name, found)
    for place in (
        REPOSITORY / "pywg" / "_native" / "pywgd",
        REPOSITORY / "zig-out" / "bin" / "pywgd",
    ):
        if os.access(place, os.X_OK):
            return Program("pywgd", str(place))
    raise Missing("no pywgd: run `zig build`, or name one with PYWGD=/path/to/pywgd")


def wireguard_go_debian() -> Program:
    return _peer("wireguard-go-debian", ["/usr/bin/wireguard-go"])


def wireguard_go_current() -> Program:
    return _peer("wireguard-go", [str(CACHE / "wireguard"), "wireguard"])


def tailscale() -> Program:
    """Tailscale's fork of wireguard-go, the strongest of them."""
    return _peer("tailscale", [str(CACHE / "wireguard-go-tailscale"), "wireguard-go-tailscale"])


def boringtun() -> Program:
    return _peer(
        "boringtun",
        [str(CACHE / "boringtun-cli"), "boringtun-cli"],
        ("-f", "--disable-drop-privileges"),
    )


def gotatun() -> Program:
    return _peer(
        "gotatun",
        [str(CACHE / "gotatun"), "gotatun"],
        ("-f", "--disable-drop-privileges"),
    )


def _peer(label: str, places: list[str], arguments: tuple[str, ...] = ("-f",)) -> Program:
    for place in places:
        found = shutil.which(place)
        if found:
            return Program(label, found, arguments)
    raise Missing(f"{label} is not installed: run scripts/peers")


def pywg(namespace: Namespace, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line of the Python package, run inside a namespace; it may fail."""
    with namespace.entered():
        return subprocess.run(
            [sys.executable, "-m", "pywg", *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=REPOSITORY,
        )
