"""What wg(8) reads of a wg-quick file: `wg-quick strip`, to the byte."""

from __future__ import annotations

from dataclasses import replace

from pywg.config import grammar
from pywg.config.model import AllowedIP, Config
from pywg.config.values import SPACES

_QUICK_KEYS = frozenset(row.name.lower() for row in grammar.rows("Interface", "wg-quick"))


def with_what_is_left(config: Config) -> Config:
    """ExcludedIPs worked into AllowedIPs: wg knows no such key."""
    peers = (
        replace(peer, allowed_ips=tuple(map(AllowedIP, peer.networks)), excluded_ips=())
        if peer.excluded_ips
        else peer
        for peer in config.peers
    )
    return replace(config, peers=tuple(peers))


def strip(text: str) -> str:
    kept = []
    in_interface = False
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    for raw in lines:
        line = raw.strip(" \t")
        key = line.partition("#")[0].partition("=")[0].strip(SPACES).lower()
        if key.startswith("["):
            in_interface = key == "[interface]"
        if not (in_interface and key in _QUICK_KEYS):
            kept.append(f"{line}\n")
    return "".join(kept) + "\n"
