"""Zig tests that qemu-user cannot do, by room, with the reason."""

from __future__ import annotations

from tools.targets.machine import BIG_ENDIAN

# reason -> (room, the ends of the tests' names)
EVERYWHERE: dict[str, list[tuple[str, str]]] = {}
OTHER_BYTE_ORDER: dict[str, list[tuple[str, str]]] = {}


def left_out(arch: str, room: str) -> list[str]:
    tables = [EVERYWHERE, *([OTHER_BYTE_ORDER] if arch in BIG_ENDIAN else [])]
    entries = [entry for reasons in tables for rows in reasons.values() for entry in rows]
    return [name for where, name in entries if where == room]
