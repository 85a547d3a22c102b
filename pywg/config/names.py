"""What can name an interface."""

from __future__ import annotations

import re
from pathlib import Path

from pywg.errors import PywgError

# Where wg-quick looks for NAME.conf.
CONFIG_DIRECTORY = Path("/etc/wireguard")
NAME_PATTERN = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")


def check_name(name: str) -> str:
    """The same name, if the kernel, `wg` and a file system all take it. Raises PywgError."""
    if not NAME_PATTERN.fullmatch(name) or name in (".", ".."):
        raise PywgError(
            f'"{name}" cannot name an interface: 1 to 15 of the characters a-z A-Z 0-9 _ = + . -'
        )
    return name
