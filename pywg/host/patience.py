"""Whoever waits for long is told for what."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

#: In seconds.
TOLD_AFTER_S = 2.0

Tell = Callable[[str], None]


@contextlib.contextmanager
def told_when_late(tell: Tell, text: str) -> Iterator[None]:
    """``tell`` hears what is waited for, if it takes long."""
    late = threading.Timer(TOLD_AFTER_S, tell, (text,))
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()
