"""What the kernel's driver sets on its device, for an interface that was moved.

A network namespace gives its own defaults to whatever comes to it. Where the interface is made,
core/io/link_settings.zig does this, and says why.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

_SETTINGS: Final = (
    ("ipv6/conf/{name}/addr_gen_mode", "1"),  # none: no link-local address
    ("ipv6/conf/{name}/accept_ra", "0"),
    ("ipv4/conf/{name}/send_redirects", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
)


def settle(name: str) -> None:
    """In this thread's network namespace, before the link goes up; a host that refuses has its way.

    That may be a /proc/sys which cannot be written, or a host without IPv6.
    """
    for path, value in _SETTINGS:
        with contextlib.suppress(OSError):
            (Path("/proc/sys/net") / path.format(name=name)).write_text(value)
