"""What up, down, reload and save mean: plan and host meet here, and nowhere else.

Usable from any program, without the command line: each function takes a ``Reporter`` that is told
what is done, and raises PywgError. Root, or the capability NET_ADMIN, is needed. Each name is
loaded when it is first used: `pywg show`, which asks for a record, is not to wait for a plan.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pywg.plan.facts import Location
    from pywg.service.supervisor import Tuning
    from pywg.tunnel.down import down, unblock
    from pywg.tunnel.dry_run import dry_run
    from pywg.tunnel.reload import reload
    from pywg.tunnel.save import save
    from pywg.tunnel.trace import Reporter
    from pywg.tunnel.up import hosted, up
    from pywg.tunnel.upgrade import upgrade

# name -> the module that it is taken from, as above
_HOME = {
    "Location": "pywg.plan.facts",
    "Tuning": "pywg.service.supervisor",
    "down": "pywg.tunnel.down",
    "unblock": "pywg.tunnel.down",
    "dry_run": "pywg.tunnel.dry_run",
    "reload": "pywg.tunnel.reload",
    "save": "pywg.tunnel.save",
    "Reporter": "pywg.tunnel.trace",
    "hosted": "pywg.tunnel.up",
    "up": "pywg.tunnel.up",
    "upgrade": "pywg.tunnel.upgrade",
}

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
    "upgrade",
]


class _Package(ModuleType):
    """Some functions are called as the modules that they are in: the function goes first, also
    where Python binds the module, which it does when anybody imports it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOME and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'pywg.tunnel' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
