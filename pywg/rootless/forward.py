"""What `-L` and `-R` say, as ssh has it: a port here that leads to a place inside, or a port inside
that leads to a place here. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["tcp", "udp"]
#: Where a port is opened if nothing is said: for this machine alone.
LOOPBACK = ("127.0.0.1", "::1")
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - only if it is asked for
_FORM = "[udp:][BIND:]PORT:HOST:PORT"
# A word without colons, or an IPv6 address in brackets.
_PART = re.compile(r"\[([^\[\]]*)\]|([^:\[\]]*)")


@dataclass(frozen=True, slots=True)
class Forward:
    """``is_reverse``: the port is inside, the place here."""

    kind: Kind
    binds: tuple[str, ...]
    port: int
    host: str
    host_port: int
    is_reverse: bool = False

    def __str__(self) -> str:
        option = "-R" if self.is_reverse else "-L"
        return f"{option} {self.kind} {self.port} to {self.host} port {self.host_port}"


def parse(text: str, *, is_reverse: bool = False) -> Forward:
    """Raises ValueError with what is wrong."""
    kind: Kind = "udp" if text.startswith("udp:") else "tcp"
    parts = _parts(text.removeprefix("udp:").removeprefix("tcp:"))
    if len(parts) not in (3, 4):
        raise ValueError(f'"{text}" is not {_FORM} (an IPv6 address in brackets)')
    *bind, port, host, host_port = parts
    if not host:
        raise ValueError(f'"{text}" names no host: {_FORM}')
    return Forward(kind, _binds(bind), _port(port), host, _port(host_port), is_reverse)


def _parts(text: str) -> list[str]:
    parts, at = [], 0
    while True:
        found = _PART.match(text, at)
        assert found is not None  # noqa: S101 - it matches nothing, too
        parts.append(found[1] if found[1] is not None else found[2])
        at = found.end()
        if at == len(text):
            return parts
        if text[at] != ":":
            raise ValueError(f'"{text}" is not {_FORM} (an IPv6 address in brackets)')
        at += 1


def _binds(bind: list[str]) -> tuple[str, ...]:
    if not bind or bind[0] == "localhost":
        return LOOPBACK
    return EVERYWHERE if bind[0] in ("", "*") else (bind[0],)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 16):
        raise ValueError(f'"{text}" is no port: 1 to 65535')
    return int(text)
