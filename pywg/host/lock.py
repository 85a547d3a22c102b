"""One command at a time changes this host's network: from what it finds out to what it does about
it, no other may come between.

An flock, which the kernel lets go when its holder ends, however it ends. No hook is run and no name
looked up while it is held: a hook may call us, and a resolver may never answer.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from pywg.errors import system_call
from pywg.host.patience import Tell, told_when_late

PATH = Path("/run/pywg/lock")


class _Thread(threading.local):
    holds = False


_this_thread = _Thread()


@contextlib.contextmanager
def held(tell: Tell) -> Iterator[None]:
    """``tell`` is given one line if another holds it for long. A thread that holds it may ask
    again."""
    if _this_thread.holds:
        yield
        return
    try:
        PATH.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(PATH, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise system_call(error, str(PATH)) from None
    late = f"another pywg changes this host's network: waiting for it ({PATH})"
    try:
        with told_when_late(tell, late):
            fcntl.flock(file, fcntl.LOCK_EX)
        _this_thread.holds = True
        yield
    finally:
        _this_thread.holds = False
        os.close(file)
