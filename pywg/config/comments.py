"""Names of peers as other programs write them: in comments above or in a section.

``# friendly_name = NAME`` is that of prometheus_wireguard_exporter, ``### Client NAME`` that of
common install scripts, ``# Name = NAME`` that of many people. Invariant: what a file says itself,
``#!pywg Name = NAME``, goes first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pywg.config import values
from pywg.config.model import Config
from pywg.config.parser import BYTE_ORDER_MARK
from pywg.config.spans import spans
from pywg.config.values import BadValue
from pywg.keys import PublicKey

_NAME = re.compile(r"\s*#+\s*(?:(?:friendly_name|name)\s*=|(?<=###) *client\s)(.+)", re.IGNORECASE)


def names(text: str, config: Config) -> dict[PublicKey, str]:
    """Of those peers of a file that have one; ``config`` is what its text says."""
    found = {peer.public_key: peer.name for peer in config.peers if peer.name}
    if "#" not in text:
        return found
    lines = text.removeprefix(BYTE_ORDER_MARK).split("\n")
    keys = {str(peer.public_key): peer.public_key for peer in config.peers}
    for span in spans(lines):
        key = keys.get(span.public_key)
        if key is not None and key not in found:
            name = _name(lines[span.first : span.end])
            if name:
                found[key] = name
    return found


def _name(lines: Iterable[str]) -> str:
    for line in lines:
        said = _NAME.fullmatch(line.rstrip("\r"))
        if said:
            try:
                return values.peer_name(said[1])
            except BadValue:
                continue
    return ""
