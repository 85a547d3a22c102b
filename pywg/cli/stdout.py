"""Where stdout leads: to a terminal that has colours, or to a file that others may open."""

from __future__ import annotations

import os
import stat
import sys


def wants_color() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def warn_if_world_accessible_output() -> None:
    try:
        status = os.fstat(1)
    except OSError:
        return
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o007:
        print(
            "Warning: writing to world accessible file.\n"
            "Consider setting the umask to 077 and trying again.",
            file=sys.stderr,
        )
