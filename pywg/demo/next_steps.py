"""What to type after a demo: lines that work for whoever has just seen it.

Pure but for ``reader``, which looks at this process. A line names the `pywg` of this installation:
by its path where the shell, or sudo, would not find it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads the advice. ``pywg``: what they type for it; ``path``: what root types for it;
    ``verbs``: what it can do; ``sudo``: whether there is one; ``has_tun``: whether there is a
    /dev/net/tun, for us or not."""

    pywg: str
    path: str
    verbs: Collection[str]
    is_root: bool
    sudo: bool
    has_tun: bool

    def as_root(self, words: str) -> str:
        """The line with which these words are run as root."""
        if self.is_root:
            return f"{self.pywg} {words}"
        if self.sudo:
            return f"sudo {self.path} {words}"
        return f"su -c {shlex.quote(f'{self.path} {words}')}"


@dataclass(frozen=True, slots=True)
class NextStep:
    """A line to type, and what it does."""

    command: str
    what: str


def next_steps(tier: str, reader: Reader) -> list[NextStep]:
    """Three lines, the most useful first."""
    every = NextStep(f"{reader.pywg} --help", "every command")
    if tier == "loopback":
        return [*_to_a_real_tunnel(reader), *_own_tunnel(reader), every][:3]
    if tier == "userns" and "exec" in reader.verbs:
        command = f"{reader.pywg} exec ./wg0.conf -- curl https://example.org"
        rootless = NextStep(
            command, "one program through a tunnel of your VPN's file, without root"
        )
        return [rootless, *_own_tunnel(reader)[:1], every]
    return [*_own_tunnel(reader), every][:3]


def _to_a_real_tunnel(reader: Reader) -> list[NextStep]:
    """What keeps this host from more than the loopback: to root it is told as the reason why."""
    if not reader.has_tun:
        mended = "modprobe tun"
        command = mended if reader.is_root else f"{'sudo ' if reader.sudo else ''}{mended}"
        return [NextStep(command, "gives this host the TUN device that a real tunnel needs")]
    if reader.is_root:
        return []
    return [NextStep(reader.as_root("demo"), "the same with a real tunnel between namespaces")]


def _own_tunnel(reader: Reader) -> list[NextStep]:
    """A server's file, made here, and then its tunnel."""
    if "init" not in reader.verbs:
        up = NextStep(reader.as_root("up ./wg0.conf"), "a tunnel from a file of wg-quick's")
        return [up, NextStep(reader.as_root("show"), "what runs")]
    return [
        NextStep(reader.as_root("init wg0 --endpoint vpn.example.com"), "a server's file"),
        NextStep(reader.as_root("up wg0"), "its tunnel; then `peer add wg0 NAME` for clients"),
    ]


def reader(verbs: Collection[str]) -> Reader:
    """Of this process."""
    path = _path()
    found = shutil.which("pywg")
    on_path = found is not None and Path(found).resolve() == Path(path.split()[0]).resolve()
    return Reader(
        pywg="pywg" if on_path else path,
        path=path,
        verbs=verbs,
        is_root=os.geteuid() == 0,
        sudo=shutil.which("sudo") is not None,
        has_tun=Path("/dev/net/tun").exists(),
    )


def _path() -> str:
    """The script beside our Python, else Python with our module; quoted for a shell."""
    beside = Path(sys.executable).parent / "pywg"
    if beside.exists():
        return shlex.quote(str(beside))
    return f"{shlex.quote(sys.executable)} -m pywg"
