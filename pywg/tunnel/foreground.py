"""`pywg up --foreground`: stays beside a tunnel that is up, tells systemd, and takes it down again.

Knows how a service lives, not what a tunnel consists of.
"""

from __future__ import annotations

import contextlib
import select
import signal

from pywg.errors import PywgError
from pywg.service import notify
from pywg.service.supervisor import Supervisor, forbid_dumps
from pywg.tunnel.down import down
from pywg.tunnel.trace import Reporter

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def stay(name: str, supervisor: Supervisor, reporter: Reporter) -> int:
    """Until a signal, or until the tunnel ends by itself; the answer is the exit code.

    A tunnel that somebody deleted ended well; a background process that died did not.
    """
    forbid_dumps()  # this process has read the file
    try:
        notify.ready(f"{name} is up")
        select.select([supervisor], [], [])
    except KeyboardInterrupt as signalled:  # what `pywg` makes of SIGTERM too
        ignore_signals()
        reporter.warn(f"{signalled or 'SIGINT'}: taking {name} down")
        notify.stopping(f"taking {name} down")
        down(name, reporter=reporter)
        return 0
    ignore_signals()
    notify.stopping(f"{name} ended")
    code = 0 if supervisor.ended_well() else 1
    with contextlib.suppress(PywgError):  # nothing may be left of it
        down(name, reporter=reporter)
    return code


def ignore_signals() -> None:
    """A second one must not leave the work half done."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
