"""What a process has open that it did not open itself."""

from __future__ import annotations

import os
from collections.abc import Iterable


def close_others(keep: Iterable[int]) -> None:
    """All but the standard three and these."""
    last = 2
    for fd in sorted({*keep, 1 << 20}):
        if fd > last:
            os.closerange(last + 1, fd)
            last = fd
