"""What the kernel still has to do in this network namespace for programs that have ended.

A program that writes, closes and ends relies on the kernel to deliver the rest. A namespace that
went at once would take it along.
"""

from __future__ import annotations

import contextlib
import os
import select
from pathlib import Path

from pywg.rootless.messages import Left

# FIN_WAIT1, LAST_ACK, CLOSING (include/net/tcp_states.h): there is something that the other end has
# not acknowledged.
_CLOSING = frozenset({"04", "09", "0B"})
_TUNS: dict[str, int] = {}


def watch(tun: int, name: str) -> None:
    """A copy of the descriptor is kept, since it alone can tell whether packets wait. It goes with
    this process."""
    _TUNS[name] = os.dup(tun)


def look() -> Left:
    queued = bool(select.select(list(_TUNS.values()), [], [], 0)[0])
    closing = sum(closing_in(_read(f"/proc/self/net/{kind}")) for kind in ("tcp", "tcp6"))
    sent = sum(sent_by(name, _read("/proc/self/net/dev")) for name in _TUNS)
    return Left(int(queued), closing, sent)


def closing_in(table: str) -> int:
    """Of /proc/net/tcp, below its headings."""
    rows = [line.split() for line in table.splitlines()[1:]]
    return sum(len(row) > 3 and row[3] in _CLOSING for row in rows)


def sent_by(name: str, table: str) -> int:
    """Packets, by /proc/net/dev: the tenth number of the interface's line."""
    for line in table.splitlines():
        head, _, numbers = line.partition(":")
        if head.strip() == name:
            return int(numbers.split()[9])
    return 0


def _read(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text(encoding="ascii", errors="replace")
    return ""
