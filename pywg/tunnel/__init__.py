"""What up, down, reload and save mean: plan and host meet here, and nowhere else.

Usable from any program, without the command line: each function takes a ``Reporter`` that is told
what is done, and raises PywgError. Root, or the capability NET_ADMIN, is needed.
"""

from pywg.plan.facts import Location
from pywg.service.supervisor import Tuning
from pywg.tunnel.down import down, unblock
from pywg.tunnel.dry_run import dry_run
from pywg.tunnel.reload import reload
from pywg.tunnel.save import save
from pywg.tunnel.trace import Reporter
from pywg.tunnel.up import hosted, up

__all__ = [
    "Location",
    "Reporter",
    "Tuning",
    "down",
    "dry_run",
    "hosted",
    "reload",
    "save",
    "unblock",
    "up",
]
